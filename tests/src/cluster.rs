//! A RabbitMQ cluster on this machine: nodes that a test starts, joins, kills and asks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::node::Node;

/// The fewest nodes with which one may be down.
pub const NODES: usize = 3;
/// How long the cluster may take to reach the wanted state: a node to join, a queue to have a leader.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two questions; each starts a `rabbitmqctl`, which is heavy.
const LOOK: Duration = Duration::from_millis(100);

/// Three nodes that form one broker. Dropping it ends the nodes and removes their folders.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

/// A quorum queue, as the broker reports it. Nodes are numbers from 0 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumQueue {
    /// The node that leads it; `None` without a leader, or when the leader is down.
    pub leader: Option<usize>,
    /// The nodes whose replica of it is alive.
    pub online: BTreeSet<usize>,
}

impl Cluster {
    /// Starts the nodes and joins them.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or a node did not come up or join; the text has the last lines of the logs.
    pub fn start() -> Result<Self, String> {
        // Nodes of other clusters must not be able to join by mistake.
        let cookie = format!("POSTRIDER{:016x}", fastrand::u64(..));
        let nodes = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..NODES).map(|_| scope.spawn(|| Node::start_with(Some(&cookie)))).collect();
            let started = starting.into_iter().map(|start| start.join().map_err(|_| "a start panicked".to_owned())?);
            started.collect::<Result<Vec<_>, String>>()
        })?;
        let cluster = Self { nodes };
        // One after the other: each changes the cluster's shared membership.
        for node in &cluster.nodes[1..] {
            for arguments in [&["stop_app"][..], &["join_cluster", cluster.nodes[0].name()], &["start_app"]] {
                node.ctl(arguments).map_err(|error| format!("{error}\n{}", cluster.logs()))?;
            }
        }
        cluster.await_members(&(0..NODES).collect())?;
        Ok(cluster)
    }

    /// All nodes as one address, in their order, as the framework takes it.
    #[must_use]
    pub fn urls(&self) -> String {
        self.urls_from(0)
    }

    /// As [`Cluster::urls`], beginning with another node: clients try that one first.
    #[must_use]
    pub fn urls_from(&self, first: usize) -> String {
        let order = self.nodes.iter().cycle().skip(first).take(NODES);
        let hosts: Vec<String> = order.map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("amqp://guest:guest@{}/", hosts.join(","))
    }

    /// The process id of a node; `None` while it is down.
    #[must_use]
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].pid()
    }

    /// Ends a node with SIGKILL and waits until its process is gone; returns its process id.
    ///
    /// # Errors
    /// It is down already, or does not end.
    pub fn kill(&mut self, node: usize) -> Result<u32, String> {
        let pid = self.pid(node).unwrap_or_default();
        self.nodes[node].kill()?;
        Ok(pid)
    }

    /// Stops a node in an orderly way and waits until its process is gone.
    ///
    /// # Errors
    /// It is down already, or does not end.
    pub fn stop(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].stop()
    }

    /// Starts a node again and waits until the others see it.
    ///
    /// # Errors
    /// It is up already, does not come up, or does not join; the text has the last lines of the logs.
    pub fn restart(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].restart()?;
        let up = (0..NODES).filter(|node| self.pid(*node).is_some()).collect();
        self.await_members(&up)
    }

    /// Waits until each of these nodes reports that exactly these nodes are running.
    fn await_members(&self, expected: &BTreeSet<usize>) -> Result<(), String> {
        for node in expected {
            self.until(&format!("node {node} sees the nodes {expected:?} and no others"), || {
                let status = json(&self.nodes[*node].ctl(&["-q", "cluster_status", "--formatter", "json"])?)?;
                Ok((self.numbers(&status["running_nodes"]) == *expected).then_some(()))
            })?;
        }
        Ok(())
    }

    /// The broker's report on a quorum queue; `None` if there is no such queue.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn quorum_queue(&self, queue: &str) -> Result<Option<QuorumQueue>, String> {
        let listed = self.ask(&["list_queues", "name", "leader", "online"])?;
        let found = listed.as_array().into_iter().flatten().find(|row| row["name"] == queue);
        Ok(found.map(|row| QuorumQueue { leader: self.number(&row["leader"]), online: self.numbers(&row["online"]) }))
    }

    /// The leader of a quorum queue, as soon as there is one.
    ///
    /// # Errors
    /// There is none within the limit; the text has the last lines of the logs.
    pub fn leader_of(&self, queue: &str) -> Result<usize, String> {
        self.until(&format!("{queue} has a leader"), || Ok(self.quorum_queue(queue)?.and_then(|queue| queue.leader)))
    }

    /// Waits until a quorum queue has a leader and a living replica on every node of the cluster.
    ///
    /// # Errors
    /// It has not within the limit; the text has the last lines of the logs.
    pub fn await_whole(&self, queue: &str) -> Result<(), String> {
        self.until(&format!("{queue} has a leader and {NODES} members online"), || {
            let whole = |queue: &QuorumQueue| queue.leader.is_some() && queue.online.len() == NODES;
            Ok(self.quorum_queue(queue)?.filter(whole).map(|_| ()))
        })
    }

    /// The nodes to which clients of this name are connected; a service's connection names begin with its name.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn connected_to(&self, client: &str) -> Result<Vec<usize>, String> {
        let listed = self.ask(&["list_connections", "client_properties", "port"])?;
        let rows = listed.as_array().into_iter().flatten();
        let own = rows.filter(|row| row["client_properties"].to_string().contains(client));
        Ok(own.filter_map(|row| self.nodes.iter().position(|node| row["port"] == node.port())).collect())
    }

    /// The nodes at which the consumers of a queue have their channels.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn consumed_at(&self, queue: &str) -> Result<Vec<usize>, String> {
        // As text: in JSON a process lacks the name of its node, which is `<node.1.2.3>`.
        let listed = self.up()?.ctl(&["-q", "list_consumers", "queue_name", "channel_pid", "--no-table-headers"])?;
        let own = listed.lines().filter_map(|line| line.split_once('\t')).filter(|(name, _)| *name == queue);
        let at = |pid: &str| self.nodes.iter().position(|node| pid.starts_with(&format!("<{}.", node.name())));
        Ok(own.filter_map(|(_, pid)| at(pid)).collect())
    }

    /// Each node's report on its replica of a quorum queue: for the text of a failure.
    #[must_use]
    pub fn copies_of(&self, queue: &str) -> String {
        let question = format!("rabbit_quorum_queue:status(<<\"/\">>, <<\"{queue}\">>).");
        self.up().and_then(|node| node.ctl(&["eval", &question])).unwrap_or_else(|error| error)
    }

    /// The first node that is up.
    fn up(&self) -> Result<&Node, String> {
        self.nodes.iter().find(|node| node.pid().is_some()).ok_or_else(|| "no node is up".to_owned())
    }

    fn ask(&self, question: &[&str]) -> Result<Value, String> {
        json(&self.up()?.ctl(&[&["-q"], question, &["--formatter", "json"]].concat())?)
    }

    /// Waits until `look` finds something.
    ///
    /// # Errors
    /// It cannot within the limit; the text has what hindered it and the last lines of the logs.
    pub fn until<T>(&self, what: &str, look: impl Fn() -> Result<Option<T>, String>) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            // A node that starts or has lost its neighbour refuses some questions, so only the last answer counts.
            let hindered = match look() {
                Ok(Some(seen)) => return Ok(seen),
                Ok(None) => String::new(),
                Err(error) => error,
            };
            if begin.elapsed() > LIMIT {
                return Err(format!("not within {LIMIT:?}: {what}\n{hindered}\n{}", self.logs()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The last lines of the logs of all nodes.
    #[must_use]
    pub fn logs(&self) -> String {
        let of = |(number, node): (usize, &Node)| format!("--- node {number}, {}\n{}", node.name(), node.log_tail());
        self.nodes.iter().enumerate().map(of).collect::<Vec<_>>().join("\n")
    }

    fn number(&self, name: &Value) -> Option<usize> {
        self.nodes.iter().position(|node| name == node.name())
    }

    fn numbers(&self, names: &Value) -> BTreeSet<usize> {
        names.as_array().into_iter().flatten().filter_map(|name| self.number(name)).collect()
    }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("rabbitmqctl printed no JSON: {error}\n{text}"))
}
