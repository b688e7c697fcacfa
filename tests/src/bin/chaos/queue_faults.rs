//! Faults of one queue or one channel while all others work: no confirm, a late one, a closed channel, a full queue.

use std::time::{Duration, Instant};

use postrider::SendError;
use postrider_tests::proxy::Network;

use crate::runs::Once;
use crate::services::{NAMESPACE, passed_on};
use crate::world::{LOOK, RECOVERY, World};

/// The time-out of an impatient caller.
const SHORT: Duration = Duration::from_millis(500);
/// How many messages are sent to observe their outcome.
const PROBES: usize = 20;
/// How many messages the full queue has.
const FULL: usize = 3;

impl World {
    /// The queue's process is suspended, and no client is told.
    pub async fn suspend_a_queue(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let (queue, key) = [("worker", "worker.do"), ("keeper", "keeper.do")][rng.usize(..2)];
        let tell = |what: &str| {
            let find = format!(r#"P = whereis(list_to_atom("%2F_{NAMESPACE}.{queue}")), true = is_pid(P)"#);
            self.node.ctl(&["eval", &format!("{find}, sys:{what}(P).")])
        };
        tell("suspend")?;
        let begin = Instant::now();
        let sent = self.send(key, &format!("suspended-{}", self.faults), Some(SHORT)).await;
        let beside = if queue == "keeper" { self.works().await } else { Ok(()) };
        tokio::time::sleep(Duration::from_secs(1 + rng.u64(..12))).await;
        let suspended = begin.elapsed();
        tell("resume")?;
        beside.map_err(|error| format!("beside a queue that stands still: {error}"))?;
        match sent {
            Err(SendError::Unknown { .. }) => Ok(format!("{NAMESPACE}.{queue} confirmed nothing for {suspended:.1?}")),
            other => Err(format!("{NAMESPACE}.{queue} was to confirm nothing: {other:?}")),
        }
    }

    /// The broker's answers come late: messages arrive long before their senders know.
    pub async fn let_confirms_be_late(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let late = Duration::from_millis(1_000 + rng.u64(..1_500));
        self.proxy.set(Network::Late(late));
        let mut unknown = Vec::new();
        for number in 0..PROBES {
            let id = format!("late-{}-{number}", self.faults);
            if matches!(self.send("worker.do", &id, Some(SHORT)).await, Err(SendError::Unknown { .. })) {
                unknown.push(id);
            }
        }
        self.proxy.set(Network::Fine);
        if unknown.is_empty() {
            return Err(format!("with {late:?} of delay no confirm missed its deadline of {SHORT:?}"));
        }
        let all = |world: &Self| unknown.iter().all(|id| world.books.runs.has_begun(id));
        self.until("what was confirmed too late is handled", all).await?;
        Ok(format!("{} confirms came {late:?} late, beyond their deadline; all arrived", unknown.len()))
    }

    /// The broker takes it for an error of the client and closes one channel; the connection stays.
    pub async fn close_a_channel(&self, is_publishing: bool, rng: &mut fastrand::Rng) -> Result<String, String> {
        let epoch = self.epoch();
        let script = format!(
            // A channel may end while the others are asked.
            r#"All = [P || P <- rabbit_channel:list_local(), [{{confirm, {is_publishing}}}] =:= (catch rabbit_channel:info(P, [confirm])), {is_publishing} orelse [{{consumer_count, 0}}] =/= (catch rabbit_channel:info(P, [consumer_count]))], P = lists:nth(1 + {} rem length(All), All), rabbit_channel:do(P, {{list_to_atom("basic.ack"), 99999999, false}}), timer:sleep(500), {{length(All), is_process_alive(P)}}."#,
            rng.u32(..1_000)
        );
        let told = self.node.ctl(&["eval", &script])?;
        let Some(all) = told.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix(",false}")) else {
            return Err(format!("the channel is still there: {told}"));
        };
        if self.epoch() != epoch {
            return Err("the connection went with its channel".into());
        }
        Ok(format!("one of {all} {} channels is gone", if is_publishing { "publishing" } else { "consuming" }))
    }

    /// Full by a policy, until that is lifted. The queue rejects messages, also those of a handler.
    pub async fn fill_a_queue(&self) -> Result<String, String> {
        let queue = format!("^{NAMESPACE}[.]keeper$");
        let policy = format!(r#"{{"max-length":{FULL},"overflow":"reject-publish"}}"#);
        self.node.ctl(&["set_policy", "full", &queue, &policy, "--apply-to", "queues"])?;
        let before = self.length("keeper")?;
        let rejected = self.send_until_rejected().await;
        let passed: Vec<String> = (0..FULL).map(|number| format!("passed-{}-{number}", self.faults)).collect();
        for id in passed.iter().filter(|_| rejected.is_ok()) {
            self.books.runs.expects_once(id, Once::SendRefused);
            // The handler's message may arrive as soon as there is room.
            self.books.ledger.attempts(&passed_on(id));
            self.send("worker.pass", id, None).await.map_err(|error| error.to_string())?;
        }
        let begun = self.until("the handlers that send to it begin", |world| {
            rejected.is_err() || passed.iter().all(|id| world.books.runs.has_begun(id))
        });
        let begun = begun.await;
        // Long enough for a second run of a handler whose message is refused.
        tokio::time::sleep(2 * SHORT).await;
        self.node.ctl(&["clear_policy", "full"])?;
        begun?;
        let taken = rejected?;
        // No other fault affects these handlers until their messages are accepted.
        let (begin, expected) = (Instant::now(), before + taken as u64 + passed.len() as u64);
        while self.length("keeper")? < expected {
            if begin.elapsed() > RECOVERY {
                return Err(format!(
                    "what {FULL} handlers send is not taken within {RECOVERY:?}, though there is room"
                ));
            }
        }
        Ok(format!("{taken} messages were taken, then one was rejected, and those of {FULL} handlers"))
    }

    /// How many messages it had accepted before.
    async fn send_until_rejected(&self) -> Result<usize, String> {
        let (begin, mut taken) = (Instant::now(), 0);
        while begin.elapsed() < RECOVERY {
            match self.send("keeper.do", &format!("full-{}-{taken}", self.faults), None).await {
                Ok(()) => taken += 1,
                Err(SendError::Rejected { .. }) => return Ok(taken),
                Err(other) => return Err(other.to_string()),
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(format!("nothing is rejected within {RECOVERY:?}; {taken} messages were taken"))
    }
}
