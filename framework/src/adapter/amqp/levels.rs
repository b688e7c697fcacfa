//! Delays without a plugin. There are 25 levels, each a queue with one TTL for all messages, so that no message waits behind a
//! longer delay. A message waits in the levels whose bits are set in its delay. See `docs/wire.md`, "Delays".

use std::time::Duration;

use crate::adapter::amqp::declaration::{Binding, Declaration, DeclaredQueue, Exchange, ExchangeKind};
use crate::broker::Names;

/// How many levels there are.
const LEVELS: u32 = 25;
/// The delay of the lowest level. Each higher level lasts twice as long as the one below.
const TICK: Duration = Duration::from_millis(100);
/// The longest delay, a little over 38 days.
pub(crate) const MAX_DELAY: Duration = TICK.saturating_mul((1 << LEVELS) - 1);
/// The last word of the routing key of a message that is published to its key when it is due.
const DUE: &str = "due";

/// Exchange and routing key for a delay. The delay is at most [`MAX_DELAY`] and is rounded up to a tenth of a second.
fn address(names: &Names, delay: Duration, target: &str) -> (String, String) {
    let delay = delay.min(MAX_DELAY);
    let ticks = delay.as_nanos().div_ceil(TICK.as_nanos()).max(1);
    let highest = u128::BITS - 1 - ticks.leading_zeros();
    let mut key = String::with_capacity(2 * LEVELS as usize + target.len());
    for level in (0..LEVELS).rev() {
        key.push(if ticks >> level & 1 == 1 { '1' } else { '0' });
        key.push('.');
    }
    key.push_str(target);
    (names.delay_level(highest), key)
}

/// Exchange and routing key for a message that arrives in a queue after a delay.
pub(crate) fn delayed_to_queue(names: &Names, delay: Duration, queue: &str) -> (String, String) {
    address(names, delay, &word_of(names, queue))
}

/// Exchange and routing key for a message that is published after a delay.
pub(crate) fn delayed_publish(names: &Names, delay: Duration) -> (String, String) {
    address(names, delay, DUE)
}

/// A queue's name as one word of a routing key.
fn word_of(names: &Names, queue: &str) -> String {
    queue.strip_prefix(names.namespace()).map_or(queue, |rest| rest.trim_start_matches('.')).replace('.', ":")
}

/// The exchanges, queues and bindings of all levels.
pub(crate) fn delay_levels(names: &Names) -> Declaration {
    let mut topology = Declaration::default();
    topology
        .exchanges
        .push(Exchange::new(names.delay_out(), ExchangeKind::Topic).with("alternate-exchange", names.due()));
    for level in 0..LEVELS {
        let name = names.delay_level(level);
        let below = if level == 0 { names.delay_out() } else { names.delay_level(level - 1) };
        let millis = TICK.as_millis() as i64 * (1 << level);
        topology.exchanges.push(Exchange::new(&name, ExchangeKind::Topic));
        topology.queues.push(
            DeclaredQueue::replicated(&name)
                .with("x-message-ttl", millis)
                .with("x-dead-letter-exchange", below.as_str())
                .with("x-dead-letter-strategy", "at-least-once")
                .with("x-overflow", "reject-publish"),
        );
        let bit = |bit: &str| format!("{}{bit}.#", "*.".repeat((LEVELS - 1 - level) as usize));
        topology.bindings.push(Binding::to_queue(&name, bit("1"), &name));
        topology.bindings.push(Binding::to_exchange(&name, bit("0"), below));
    }
    topology
}

/// The pattern that matches messages that come out of the levels for a queue.
pub(crate) fn return_key(names: &Names, queue: &str) -> String {
    format!("{}{}", "*.".repeat(LEVELS as usize), word_of(names, queue))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::amqp::declaration::Destination;
    use crate::broker::matches;

    /// Follows a message through the levels. Returns how long it takes and the exchange where it comes out.
    fn travel(exchange: &str, key: &str, topology: &Declaration) -> (Duration, String) {
        let (mut at, mut waited) = (exchange.to_owned(), Duration::ZERO);
        for _ in 0..=2 * LEVELS {
            if at.ends_with("delay.out") {
                return (waited, at);
            }
            let taken: Vec<&Binding> = topology
                .bindings
                .iter()
                .filter(|binding| binding.source == at && matches(&binding.routing_key, key))
                .collect();
            assert_eq!(taken.len(), 1, "{at} {key}");
            at = match &taken[0].destination {
                Destination::Exchange(below) => below.clone(),
                Destination::Queue(name) => {
                    let queue = topology.queues.iter().find(|queue| queue.name == *name).unwrap();
                    let ttl = queue.arguments.get("x-message-ttl").and_then(crate::message::Value::as_integer);
                    waited += Duration::from_millis(ttl.unwrap() as u64);
                    queue.arguments.text("x-dead-letter-exchange").unwrap().to_owned()
                }
            };
        }
        panic!("{key} goes in circles");
    }

    #[test]
    fn a_delay_is_never_shorter_than_asked_and_at_most_a_tick_longer() {
        let (names, millis) = (Names::default(), Duration::from_millis);
        let topology = delay_levels(&names);
        for delay in [1, 99, 100, 101, 1_000, 5_000, 12_345, 60_000, 3_600_000, 86_400_000, 3_283_200_000].map(millis) {
            let (exchange, key) = delayed_to_queue(&names, delay, "postrider.invoice");
            let (waited, _) = travel(&exchange, &key, &topology);
            assert!(waited >= delay && waited < delay + TICK, "{delay:?} became {waited:?}");
        }
        let (exchange, key) = delayed_publish(&names, Duration::MAX);
        assert_eq!(travel(&exchange, &key, &topology).0, MAX_DELAY);
        assert!(MAX_DELAY > postrider_grammar::MAX_DELAY);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn any_delay_takes_as_long_as_was_asked_or_up_to_a_tick_longer(
            asked in prop_oneof![
                (0..=MAX_DELAY.as_nanos() as u64).prop_map(Duration::from_nanos),
                (0..100_000_u64).prop_map(Duration::from_millis),
                (0..LEVELS, -1..=1_i64).prop_map(|(level, off)| Duration::from_millis(((100_i64 << level) + off) as u64)),
                any::<u64>().prop_map(Duration::from_secs),
            ]
        ) {
            let names = Names::default();
            let (exchange, key) = delayed_publish(&names, asked);
            let (waited, _) = travel(&exchange, &key, &delay_levels(&names));
            let expected = asked.min(MAX_DELAY);
            prop_assert!(waited >= expected && waited < expected + TICK || waited == TICK && expected.is_zero(), "{asked:?} became {waited:?}");
            prop_assert!(key.len() <= 255 && waited <= MAX_DELAY);
        }

        #[test]
        fn any_two_queues_have_ways_back_of_their_own(
            first in "[a-c]{1,2}(\\.[a-c]{1,2})?", second in "[a-c]{1,2}(\\.[a-c]{1,2})?", millis in 1..100_000_u64
        ) {
            let names = Names::default();
            let queue = |name: &str| format!("postrider.{name}");
            let (_, key) = delayed_to_queue(&names, Duration::from_millis(millis), &queue(&first));
            let comes_back = matches(&return_key(&names, &queue(&second)), &key);
            prop_assert_eq!(comes_back, first == second);
        }
    }

    #[test]
    fn what_comes_back_goes_to_its_own_queue_only() {
        let names = Names::default();
        let queues = ["postrider.invoice", "postrider.invoice.audit", "postrider.due-date"];
        for queue in queues {
            let (_, key) = delayed_to_queue(&names, Duration::from_secs(1), queue);
            let taken: Vec<&str> =
                queues.into_iter().filter(|other| matches(&return_key(&names, other), &key)).collect();
            assert_eq!(taken, [queue]);
            assert!(key.len() <= 255);
        }
        let (_, due) = delayed_publish(&names, Duration::from_secs(1));
        assert!(queues.iter().all(|queue| !matches(&return_key(&names, queue), &due)));
    }
}
