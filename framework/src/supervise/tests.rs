//! Tasks that panic, and the list of those that are not healthy.

use std::cell::{Cell, RefCell};
use std::future::pending;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_started_again_and_a_problem_until_it_has_run_for_a_while() {
    let (tasks, runs) = (Tasks::default(), Cell::new(0_u32));
    let task = supervise(tasks.clone(), "the mill".into(), pending(), async || {
        runs.set(runs.get() + 1);
        assert!(runs.get() > 3, "grain {}", runs.get());
        sleep(Duration::from_secs(60)).await;
        "done"
    });
    let watch = async {
        while runs.get() < 4 {
            if runs.get() > 0 {
                let expected = format!("the mill: panicked and is started again: grain {}", runs.get());
                assert_eq!(tasks.problems(), [expected]);
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(tasks.problems().len(), 1, "it may panic at once again");
        sleep(HEALTHY_AFTER + Duration::from_millis(1)).await;
        assert!(tasks.problems().is_empty());
    };
    assert_eq!(tokio::join!(task, watch).0, Some("done"));
}

#[tokio::test(start_paused = true)]
async fn pauses_double_and_are_bounded_and_are_short_again_after_a_healthy_run() {
    let (began, last) = (RefCell::new(Vec::new()), Cell::new(Instant::now()));
    supervise(Tasks::default(), "t".into(), pending(), async || {
        began.borrow_mut().push(last.get().elapsed());
        let runs = began.borrow().len();
        if runs == 12 {
            sleep(HEALTHY_AFTER).await;
        }
        last.set(Instant::now());
        assert_eq!(runs, 13, "not yet");
    })
    .await;
    let pauses = began.into_inner();
    let mut most = FIRST_PAUSE;
    for pause in &pauses[1..12] {
        // A timer is exact to a millisecond.
        assert!(*pause >= most / 2 && *pause <= most + Duration::from_millis(1), "{pauses:?}");
        most = (most * 2).min(LAST_PAUSE);
    }
    assert!(pauses[12] <= FIRST_PAUSE + Duration::from_millis(1), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_again_when_the_app_has_ended() {
    let (tasks, runs) = (Tasks::default(), Cell::new(0));
    let ended = sleep(Duration::from_millis(10));
    let result: Option<()> = supervise(tasks.clone(), "t".into(), ended, async || {
        runs.set(runs.get() + 1);
        panic!("always");
    })
    .await;
    assert_eq!((result, runs.get()), (None, 1));
    assert!(tasks.problems().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tasks_of_one_name_have_a_problem_each() {
    let tasks = Tasks::default();
    let panics =
        || supervise::<()>(tasks.clone(), "lane".into(), sleep(Duration::from_millis(40)), async || panic!("x"));
    let look = async {
        sleep(Duration::from_millis(20)).await;
        assert_eq!(tasks.problems().len(), 2);
    };
    tokio::join!(panics(), panics(), look);
}
