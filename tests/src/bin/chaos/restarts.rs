//! A process that is stopped in an orderly way and started again, many times within seconds, with a backlog.

use std::time::{Duration, Instant};

use crate::consumer::{Consumer, Role};
use crate::runs::Once;
use crate::services::NAMESPACE;
use crate::world::{LOOK, RECOVERY, World};

/// More restarts than the number of unsettled deliveries that condemns a message.
const RESTARTS: usize = 18;
/// The initial backlog of each of its two actors: more than it handles between the stops.
const BACKLOG: usize = 60;
/// The fewest messages that it handles before each stop.
const BETWEEN_STOPS: u64 = 2;
/// After this long without a message the test asks the broker for the backlog; asking takes longer than handling.
const QUIET: Duration = Duration::from_secs(3);

impl World {
    /// A stop costs no attempt, and no message that has not begun.
    pub async fn restart_by_the_dozen(&self) -> Result<String, String> {
        let mut backlog = Vec::new();
        for number in 0..BACKLOG {
            for key in ["keeper.do", "keeper.help"] {
                let id = format!("{key}-{}-{number}", self.faults);
                self.books.runs.expects_once(&id, Once::Stopped);
                self.send(key, &id, None).await.map_err(|error| format!("{id}: {error}"))?;
                backlog.push(id);
            }
        }
        let (mut handled, mut stops) = (0, 0);
        while stops < RESTARTS {
            let before = self.books.handled_by_keepers();
            let mut keeper = Consumer::start(&self.url, Role::Keeper, &self.books);
            let begin = Instant::now();
            while self.books.handled_by_keepers() < before + BETWEEN_STOPS && begin.elapsed() < RECOVERY {
                // A backlog that was given up is gone; the findings at the end report it.
                if begin.elapsed() > QUIET && self.has_worked_off()? {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            let gone = self.books.handled_by_keepers() < before + BETWEEN_STOPS;
            keeper.end("TERM")?;
            stops += 1;
            handled += self.books.handled_by_keepers() - before;
            if gone {
                break;
            }
        }
        self.work_off_the_rest().await?;
        let begun = backlog.iter().filter(|id| self.books.runs.has_begun(id)).count();
        Ok(format!(
            "{RESTARTS} stops, {handled} messages handled between them, {begun} of {} began in the end",
            backlog.len()
        ))
    }

    /// A keeper without faults handles the rest.
    pub async fn work_off_the_rest(&self) -> Result<(), String> {
        let mut keeper = Consumer::start(&self.url, Role::Keeper, &self.books);
        let begin = Instant::now();
        while !self.has_worked_off()? {
            if begin.elapsed() > RECOVERY {
                return Err(format!("the keeper does not work off its backlog within {RECOVERY:?}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        keeper.end("TERM").map(drop)
    }

    /// Whether keepers have no messages left.
    fn has_worked_off(&self) -> Result<bool, String> {
        Ok(self.length("keeper")? + self.length("keeper.helper")? == 0)
    }

    /// The number of messages in a queue, unacknowledged ones included.
    pub fn length(&self, queue: &str) -> Result<u64, String> {
        let told = self.node.ctl(&["list_queues", "--quiet", "--no-table-headers", "name", "messages"])?;
        let of = |line: &str| line.strip_prefix(&format!("{NAMESPACE}.{queue}\t"))?.trim().parse().ok();
        told.lines().find_map(of).ok_or_else(|| format!("no queue {NAMESPACE}.{queue}:\n{told}"))
    }
}
