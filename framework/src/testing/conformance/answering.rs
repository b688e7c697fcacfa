//! Scenarios for answers on the delivery's channel.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use super::Bench;
use super::bench::{addressed, next, sorted, text, to};
use crate::broker::{Addressed, Answered, Consumer, Delivery, Publication, Queue};

/// How long sending an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A queue with questions and an empty queue for answers.
async fn questions(bench: &Bench, questions: usize) -> (Queue, Queue) {
    // A quorum queue of RabbitMQ loses messages that a channel without confirms sent right before it closed.
    let (asked, answers) = (bench.queue("asked"), Queue::on_one_node(bench.name("answers")));
    bench.declare_queues(&[&asked, &answers]).await;
    let publisher = bench.publisher().await;
    for number in 0..questions {
        bench.publish(&publisher, to(&asked), &number.to_string()).await;
    }
    (asked, answers)
}

fn answer(queue: &Queue, payload: &str) -> Addressed {
    Addressed { mandatory: false, ..addressed(to(queue), payload) }
}

/// Waits until an answer has been sent.
async fn left(consumer: &mut Box<dyn Consumer>, answered: Answered, number: u64) {
    match answered {
        Answered::Left => {}
        Answered::Leaving => {
            let left = timeout(ANSWER_TIMEOUT, poll_fn(|cx| consumer.poll_answered(cx))).await;
            assert_eq!(left.expect("an answer leaves"), (number, true));
        }
        Answered::Refused(_) => panic!("a consumer that was opened for answers refuses one"),
    }
}

pub(super) async fn an_answer_leaves_on_the_channel_of_its_question_and_settles_nothing(bench: Bench) {
    let (asked, answers) = questions(&bench, 2).await;
    let mut consumer = bench.consume_for_answers(&asked, 5).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    for (number, question) in [(7, &first), (9, &second)] {
        let answered = question.receipt.answer(number, answer(&answers, &text(question)));
        left(&mut consumer, answered, number).await;
    }
    first.receipt.ack();
    // The channel ends before the second delivery is settled.
    drop((second, consumer));
    assert_eq!(bench.drain(&answers).await, ["0", "1"]);
    assert_eq!(bench.drain(&asked).await, ["1"]);
}

pub(super) async fn answers_that_are_on_their_way_leave_before_the_channel_closes(bench: Bench) {
    const QUESTIONS: usize = 40;
    let (asked, answers) = questions(&bench, QUESTIONS).await;
    let publisher = bench.publisher().await;
    for close in [true, false] {
        let mut consumer = bench.consume_for_answers(&asked, QUESTIONS as u16).await;
        let mut asked = Vec::new();
        while asked.len() < QUESTIONS {
            asked.push(next(&mut consumer).await);
        }
        let large = "x".repeat(50_000);
        let put = |question: &Delivery| {
            let answered = question.receipt.answer(1, answer(&answers, &format!("{} {large}", text(question))));
            assert!(!matches!(answered, Answered::Refused(_)));
        };
        asked.iter().for_each(put);
        if close {
            consumer.close().await;
        }
        drop((asked, consumer));
        let mut arrived = Vec::new();
        let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
        while arrived.len() < QUESTIONS && tokio::time::Instant::now() < deadline {
            arrived.extend(bench.drain(&answers).await.into_iter().map(|answer| answer[..2].trim().to_owned()));
        }
        let expected: Vec<String> = (0..QUESTIONS).map(|number| number.to_string()).collect();
        assert_eq!(sorted(arrived), sorted(expected));
        assert_eq!(bench.publish(&publisher, to(&answers), "alive").await, Publication::Confirmed);
        assert_eq!(bench.drain(&answers).await, ["alive"]);
    }
}

pub(super) async fn what_cannot_be_answered_on_a_channel_is_refused_unchanged(bench: Bench) {
    let (asked, answers) = questions(&bench, 2).await;
    let mut consumer = bench.consume(&asked, 1).await;
    let question = next(&mut consumer).await;
    let Answered::Refused(refused) = question.receipt.answer(1, answer(&answers, "answer")) else {
        panic!("the consumer was not opened for answers")
    };
    assert_eq!((&refused.to, &refused.envelope.payload[..]), (&to(&answers), &b"answer"[..]));
    question.receipt.ack();
    consumer.close().await;
    let mut consumer = bench.consume_for_answers(&asked, 1).await;
    let question = next(&mut consumer).await;
    consumer.close().await;
    let answered = question.receipt.answer(1, answer(&answers, "too late"));
    assert!(matches!(answered, Answered::Refused(_)), "the channel is closed: {answered:?}");
}
