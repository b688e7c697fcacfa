//! Faults of the broker, the network and the processes.

use std::time::{Duration, Instant};

use postrider::operate::{DeadFilter, DeadLetters};
use postrider_tests::node::{ALARM, NO_ALARM, send};
use postrider_tests::proxy::Network;
use postrider_tests::raw::{RawClient, RawMessage};
use postrider_tests::strangers::{self, STRANGER};

use crate::Fault;
use crate::consumer::{Consumer, Role};
use crate::services::NAMESPACE;
use crate::world::{CONSUMERS, RECOVERY, World};

/// The most bytes that a frame with properties has besides them.
const FRAME_REST: usize = 64;

impl World {
    /// When it is declared again it has no bindings, unless the processes notice.
    fn delete_an_exchange(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let name = ["command", "delay.0", "delay.out", "channel"][rng.usize(..4)];
        let script = format!(
            r#"E = rabbit_misc:r(<<"/">>, exchange, <<"{NAMESPACE}.{name}">>), {{rabbit_exchange:exists(E), rabbit_exchange:delete(E, false, <<"chaos">>), rabbit_exchange:exists(E)}}."#
        );
        let told = self.node.ctl(&["eval", &script])?;
        if told.trim() != "{true,ok,false}" {
            return Err(format!("{NAMESPACE}.{name}: {told}"));
        }
        Ok(format!("{NAMESPACE}.{name} was there and was gone"))
    }

    /// The broker closes all connections, and for a while accepts none.
    async fn fill_the_virtual_host(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let epoch = self.epoch();
        self.node.ctl(&["set_vhost_limits", "-p", "/", r#"{"max-connections":0}"#])?;
        self.node.ctl(&["close_all_connections", "chaos"])?;
        let gone = self.until("the connection is gone", |world| !world.running.connection().borrow().up).await;
        tokio::time::sleep(Duration::from_millis(500 + rng.u64(..2_000))).await;
        let refused = self.epoch() == epoch;
        self.node.ctl(&["clear_vhost_limits", "-p", "/"])?;
        gone?;
        self.until("a new connection", |world| world.epoch() > epoch).await?;
        if refused {
            Ok(format!("no connection was taken, then epoch {epoch} became {}", self.epoch()))
        } else {
            Err("a connection was taken".into())
        }
    }

    /// Each of them ends as a dead letter and affects no other message.
    async fn let_a_stranger_send(&self) -> Result<String, String> {
        let letters = || async {
            let letters = DeadLetters::new(self.running.bus()).list(&DeadFilter::all()).await;
            letters.map(|letters| letters.iter().filter(|letter| letter.id().starts_with(STRANGER)).count())
        };
        let before = letters().await.map_err(|error| error.to_string())?;
        let (url, frame_max) = (self.node.url(), self.frame_max);
        let sending = tokio::task::spawn_blocking(move || {
            let mut stranger = RawClient::connect(&url);
            let mut messages = strangers::messages(&format!("{NAMESPACE}.command"), "worker.do");
            // The broker accepts no larger frame.
            let bytes = |message: &RawMessage| message.properties.iter().map(|(_, value)| value.len()).sum::<usize>();
            messages.retain(|message| bytes(message) + FRAME_REST < frame_max);
            messages.iter().for_each(|message| stranger.publish(message));
            stranger.confirmed();
            messages.len()
        });
        let sent = sending.await.map_err(|error| error.to_string())?;
        let begin = Instant::now();
        while letters().await.map_err(|error| error.to_string())? < before + sent {
            if begin.elapsed() > RECOVERY {
                return Err(format!("not all of a stranger's {sent} messages are dead letters within {RECOVERY:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(format!("{sent} messages that nobody can read became dead letters"))
    }

    /// The broker starts again with another frame size.
    async fn change_the_frames(&mut self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let (epoch, bytes) = (self.epoch(), [8_192, 131_072, 16_777_216][rng.usize(..3)]);
        self.frame_max = bytes;
        self.node.restart_with(&[], &format!("frame_max = {bytes}"))?;
        self.until("a new connection", |world| world.epoch() > epoch).await?;
        Ok(format!("frames have {bytes} bytes, epoch {epoch} became {}", self.epoch()))
    }

    /// The broker answers nothing, and all connections stay open.
    async fn freeze_the_broker(&mut self, rng: &mut fastrand::Rng) -> Result<String, String> {
        self.node.freeze()?;
        let before = self.handled();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let still = self.handled();
        tokio::time::sleep(Duration::from_secs(2 + rng.u64(..3))).await;
        let end = self.handled();
        self.node.thaw()?;
        if end != still {
            return Err(format!("{} messages were handled while the broker was frozen", end - before));
        }
        Ok(format!("nothing was handled meanwhile, {end} before it"))
    }

    /// Causes a fault and returns the proof that it took effect.
    pub async fn make(&mut self, fault: Fault, rng: &mut fastrand::Rng) -> Result<String, String> {
        let epoch = self.epoch();
        let raised = |world: &Self| world.epoch() > epoch;
        let which = rng.usize(..CONSUMERS);
        Ok(match fault {
            Fault::BrokerKilled => {
                let pid = self.node.pid().unwrap_or_default();
                self.node.kill()?;
                if send("0", pid) {
                    return Err(format!("broker {pid} is still there"));
                }
                self.node.restart()?;
                self.until("a new connection", raised).await?;
                format!("process {pid} is gone, epoch {epoch} became {}", self.epoch())
            }
            Fault::BrokerFrozen => self.freeze_the_broker(rng).await?,
            Fault::ConnectionsClosed => {
                self.node.ctl(&["close_all_connections", "chaos"])?;
                self.until("a new connection", raised).await?;
                format!("epoch {epoch} became {}", self.epoch())
            }
            Fault::NetworkSwallows => {
                self.proxy.set(Network::BlackHole);
                self.until("the heartbeats are missed", |world| !world.running.connection().borrow().up).await?;
                self.proxy.set(Network::Fine);
                self.until("a new connection", raised).await?;
                format!("missed heartbeats, epoch {epoch} became {}", self.epoch())
            }
            Fault::NetworkCut => {
                self.proxy.set(Network::Cut);
                self.until("the connection is gone", |world| !world.running.connection().borrow().up).await?;
                self.proxy.set(Network::Fine);
                self.until("a new connection", raised).await?;
                format!("connections broke, epoch {epoch} became {}", self.epoch())
            }
            Fault::MemoryAlarm => {
                self.node.ctl(&["eval", ALARM])?;
                let seen = self.until("the alarm is seen", |world| world.running.connection().borrow().blocked).await;
                self.node.ctl(&["eval", NO_ALARM])?;
                seen?;
                self.until("the alarm is over", |world| !world.running.connection().borrow().blocked).await?;
                "publishers were blocked and went on".to_owned()
            }
            Fault::ExchangeDeleted => self.delete_an_exchange(rng)?,
            Fault::VirtualHostFull => self.fill_the_virtual_host(rng).await?,
            Fault::StrangersMessages => self.let_a_stranger_send().await?,
            Fault::OtherFrames => self.change_the_frames(rng).await?,
            Fault::QueueSuspended => self.suspend_a_queue(rng).await?,
            Fault::LateConfirms => self.let_confirms_be_late(rng).await?,
            Fault::ConsumerChannelClosed => self.close_a_channel(false, rng).await?,
            Fault::PublisherChannelClosed => self.close_a_channel(true, rng).await?,
            Fault::QueueFull => self.fill_a_queue().await?,
            Fault::CallsCancelled => self.cancel_calls(rng).await?,
            Fault::OrderlyRestarts => self.restart_by_the_dozen().await?,
            Fault::ConsumerKilled | Fault::ConsumerStopped => {
                let signal = if matches!(fault, Fault::ConsumerKilled) { "KILL" } else { "TERM" };
                let pid = self.consumers[which].end(signal)?;
                self.consumers[which] = Consumer::start(&self.url, Role::Worker, &self.books);
                format!("process {pid} is gone, {} took its place", self.consumers[which].id())
            }
        })
    }
}
