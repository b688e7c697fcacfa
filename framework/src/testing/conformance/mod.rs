//! The conformance suite for broker adapters. RabbitMQ's passes it, and so does the in-process broker with the same
//! capabilities.
//!
//! An adapter's own test is a few lines:
//!
//! ```
//! use std::sync::Arc;
//! use postrider::adapter::in_process::InProcess;
//! use postrider::testing::conformance::{Bench, scenarios};
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! for scenario in scenarios() {
//!     if !scenario.lacking(&InProcess::CAPABILITIES).is_empty() {
//!         println!("not on this broker: {}", scenario.name);
//!         continue;
//!     }
//!     runtime.block_on(async {
//!         let (broker, names) = (InProcess::new(), Bench::names());
//!         let (one, other) = (Arc::new(broker.connect(&names)), Arc::new(broker.connect(&names)));
//!         scenario.run(Bench::new(names, one, other)).await;
//!     });
//! }
//! ```

mod answering;
mod bench;
mod consuming;
mod declaring;
mod publishing;
mod registry;

use std::time::Duration;

use futures::future::BoxFuture;

pub use bench::Bench;

use crate::broker::{Capabilities, Need};

/// A behaviour that an adapter must show.
pub struct Scenario {
    /// The behaviour, as a fact.
    pub name: &'static str,
    /// The capabilities it needs.
    pub needs: &'static [Need],
    run: fn(Bench) -> BoxFuture<'static, ()>,
}

impl Scenario {
    /// The needs that a broker does not meet. Such a scenario is skipped and listed as "not on this broker".
    #[must_use]
    pub fn lacking(&self, capabilities: &Capabilities) -> Vec<Need> {
        self.needs.iter().copied().filter(|need| !capabilities.meet(*need)).collect()
    }

    /// Runs the scenario.
    ///
    /// # Panics
    /// When the adapter behaves differently; the text says how.
    pub async fn run(&self, bench: Bench) {
        (self.run)(bench).await;
    }
}

macro_rules! scenarios {
    ($($module:ident::$name:ident $([$($need:expr),*])?),* $(,)?) => {
        vec![$(Scenario {
            name: stringify!($name),
            needs: &[$($($need),*)?],
            run: |bench| Box::pin($module::$name(bench)),
        }),*]
    };
}

/// The longest delay in the suite.
const LONGEST_DELAY: Duration = Duration::from_millis(300);

/// The stated capabilities of brokers, and the scenarios that each must skip, as a table in Markdown.
#[must_use]
pub fn matrix(brokers: &[(&str, Capabilities)]) -> String {
    let line = |first: &str, others: Vec<String>| format!("| {first} | {} |\n", others.join(" | "));
    let head = |first: &str| {
        let names = brokers.iter().map(|(name, _)| (*name).to_owned()).collect();
        format!("{}{}", line(first, names), line("---", vec!["---".to_owned(); brokers.len()]))
    };
    let mut text = head("capability");
    let stated: Vec<_> = brokers.iter().map(|(_, capabilities)| capabilities.rows()).collect();
    for (index, (capability, _)) in Capabilities::none().rows().iter().enumerate() {
        text += &line(capability, stated.iter().map(|rows| rows[index].1.clone()).collect());
    }
    text += &format!("\n{}", head("scenario"));
    for scenario in scenarios() {
        let covered = |(_, capabilities): &(&str, Capabilities)| match &scenario.lacking(capabilities)[..] {
            [] => "passes".to_owned(),
            lacking => {
                let lacking: Vec<String> = lacking.iter().map(ToString::to_string).collect();
                format!("not on this broker: {}", lacking.join(", "))
            }
        };
        text += &line(&format!("`{}`", scenario.name), brokers.iter().map(covered).collect());
    }
    text
}

/// All scenarios.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    scenarios![
        publishing::a_command_goes_to_the_queue_that_has_exactly_its_key [Need::ReturnKeys],
        publishing::an_event_goes_to_all_queues_whose_pattern_takes_its_key [Need::Patterns],
        publishing::a_message_for_a_service_by_name_goes_to_that_service_only,
        publishing::what_comes_straight_from_its_sender_was_tried_by_nobody,
        publishing::a_delayed_message_comes_to_its_queue_when_its_time_has_come [Need::Delays(LONGEST_DELAY)],
        publishing::taps_get_a_copy_and_each_queue_gets_one_message_only [Need::Taps, Need::ReturnKeys],
        publishing::a_mandatory_message_that_nobody_takes_is_returned [Need::ReturnKeys],
        publishing::a_message_that_is_not_mandatory_is_confirmed_without_a_queue,
        publishing::a_full_queue_rejects [Need::RefuseWhenFull],
        publishing::properties_headers_and_payload_arrive_as_they_left,
        publishing::payloads_of_no_one_and_a_million_bytes_arrive,
        publishing::a_reply_reaches_the_publisher_that_awaits_it [Need::Replies],
        publishing::publishing_after_closing_is_an_error_at_once,
        consuming::a_queue_is_first_in_first_out,
        consuming::competing_consumers_get_each_message_once [Need::SettleEach],
        consuming::prefetch_bounds_what_is_unsettled [Need::SettleEach],
        consuming::what_a_closed_consumer_had_not_settled_comes_again [Need::SettleEach],
        consuming::what_is_given_back_comes_again_and_is_counted [Need::CountDeliveries],
        consuming::an_expired_message_is_not_delivered [Need::Expiry],
        consuming::a_cancelled_consumer_gets_no_more,
        consuming::one_of_two_consumers_is_active_where_the_queue_says_so [Need::OneActiveConsumer],
        consuming::a_short_queue_keeps_the_newest [Need::DropOldest],
        answering::an_answer_leaves_on_the_channel_of_its_question_and_settles_nothing [Need::Replies],
        answering::answers_that_are_on_their_way_leave_before_the_channel_closes [Need::Replies],
        answering::what_cannot_be_answered_on_a_channel_is_refused_unchanged,
        declaring::declaring_twice_changes_nothing,
        declaring::another_queue_of_the_same_name_is_refused_with_both_values_and_others_go_on,
        declaring::a_claimed_domain_is_refused_to_another_service [Need::Claims],
        declaring::an_exclusive_queue_belongs_to_one_connection [Need::InstanceQueues],
        declaring::a_removed_subscription_takes_no_more [Need::ReturnKeys],
        declaring::a_queue_tells_how_it_stands,
        declaring::a_queue_that_stands_is_consumed_whatever_its_arguments,
        registry::a_note_is_what_was_written_last,
        registry::a_note_is_replaced_only_by_who_knows_it,
        registry::a_count_goes_up_and_down_and_is_forgotten,
        registry::claims_are_listed [Need::Claims],
    ]
}
