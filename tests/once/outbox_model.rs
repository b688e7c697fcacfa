//! The outbox against a model: any row that is written, put aside, tried again, sent or kept is where the model says, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postrider::adapter::postgres::PgStore;
use postrider::adapter::sqlite::SqliteStore;
use postrider::store::{Outbox, OutboxRow, Page, Store, StoredRow, Tables, TransactionLimits};
use postrider_tests::database::{Database, Kind};
use postrider_tests::world::run_within;

const STEPS: usize = 120;
const ADDRESSES: [&str; 3] = ["command a.do", "event b.done", "channel c:note"];

/// What is known of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    row: OutboxRow,
    parked: Option<String>,
}

#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<i64, Known>,
    sent: BTreeMap<i64, OutboxRow>,
    lease: Option<&'static str>,
}

impl Model {
    fn page(&self, page: &Page) -> Vec<(i64, OutboxRow)> {
        let mut before = 0;
        let waiting = self.rows.iter().filter(|(_, known)| known.parked.is_none());
        waiting
            .filter(|(_, known)| !page.without.contains(&known.row.address))
            .take(page.rows)
            .take_while(|(_, known)| {
                let fits = before == 0 || before < page.bytes;
                before += known.row.envelope.len();
                fits
            })
            .map(|(number, known)| (*number, known.row.clone()))
            .collect()
    }

    fn parked(&self) -> impl Iterator<Item = (&i64, &Known)> {
        self.rows.iter().filter(|(_, known)| known.parked.is_some())
    }
}

async fn open(kind: Kind, address: &str, namespace: &str) -> Box<dyn Store> {
    match kind {
        Kind::Sqlite => {
            let opened = SqliteStore::open(address, namespace, Duration::from_secs(5), Tables::Migrate).await;
            Box::new(opened.unwrap())
        }
        Kind::Postgres | Kind::Pooled => {
            Box::new(PgStore::open(address, None, namespace, Tables::Migrate).await.unwrap())
        }
    }
}

fn rows(random: &mut fastrand::Rng) -> Vec<OutboxRow> {
    let row = |random: &mut fastrand::Rng| OutboxRow {
        address: ADDRESSES[random.usize(..ADDRESSES.len())].to_owned(),
        version: 1,
        envelope: (0..random.usize(1..800)).map(|_| random.u8(..)).collect(),
    };
    (0..random.usize(1..5)).map(|_| row(random)).collect()
}

async fn write(store: &dyn Store, rows: &[OutboxRow]) {
    let mut session = store.session().await.unwrap();
    session.write(None, rows, TransactionLimits::default()).await.unwrap();
}

/// Some of the numbers, by chance.
fn some(random: &mut fastrand::Rng, numbers: impl Iterator<Item = i64>) -> Vec<i64> {
    numbers.filter(|_| random.u8(..3) == 0).collect()
}

fn read(rows: Vec<StoredRow>) -> Vec<(i64, OutboxRow)> {
    rows.into_iter().map(|stored| (stored.number, stored.row)).collect()
}

async fn step(store: &dyn Store, outbox: &mut dyn Outbox, model: &mut Model, random: &mut fastrand::Rng) {
    let numbers: Vec<i64> = model.rows.keys().copied().collect();
    match random.u8(..7) {
        0 | 1 => {
            let written = rows(random);
            write(store, &written).await;
            let new: Vec<i64> = outbox
                .list(10_000)
                .await
                .unwrap()
                .iter()
                .map(|row| row.number)
                .filter(|n| !numbers.contains(n))
                .collect();
            assert_eq!(new.len(), written.len(), "all of a transaction, and nobody else's");
            assert!(numbers.last().is_none_or(|last| new.iter().all(|number| number > last)), "behind all others");
            model.rows.extend(new.into_iter().zip(written).map(|(number, row)| (number, Known { row, parked: None })));
        }
        2 => {
            let sent = some(random, numbers.into_iter());
            outbox.remove(&sent).await.unwrap();
            model.rows.retain(|number, _| !sent.contains(number));
        }
        3 => {
            let sent = some(random, numbers.into_iter());
            outbox.keep_sent(&sent).await.unwrap();
            for number in sent {
                model.sent.extend(model.rows.remove(&number).map(|known| (number, known.row)));
            }
        }
        4 => {
            for number in some(random, numbers.into_iter()).into_iter().take(2) {
                let reason = format!("reason {number}");
                outbox.park(number, &reason).await.unwrap();
                model.rows.entry(number).and_modify(|known| known.parked = Some(reason));
            }
        }
        5 => {
            let number =
                if random.bool() { None } else { numbers.get(random.usize(..=numbers.len())).copied().or(Some(-1)) };
            let parked: BTreeSet<i64> = model.parked().map(|(number, _)| *number).collect();
            let meant = parked.into_iter().filter(|parked| number.is_none_or(|number| number == *parked));
            let meant: Vec<i64> = meant.collect();
            assert_eq!(outbox.retry(number).await.unwrap(), meant.len() as u64);
            for number in meant {
                model.rows.entry(number).and_modify(|known| known.parked = None);
            }
        }
        _ => {
            let holder = ["one", "two"][random.usize(..2)];
            if random.bool() {
                let taken = outbox.take_lease("relay", holder, Duration::from_secs(600)).await.unwrap();
                assert_eq!(taken, model.lease.is_none_or(|held| held == holder), "{holder} against {:?}", model.lease);
                model.lease = model.lease.or(Some(holder));
            } else {
                outbox.give_up_lease("relay", holder).await.unwrap();
                model.lease = model.lease.filter(|held| *held != holder);
            }
        }
    }
}

async fn agree(outbox: &mut dyn Outbox, model: &Model, random: &mut fastrand::Rng) {
    let without: Vec<String> = ADDRESSES.iter().filter(|_| random.u8(..4) == 0).map(|it| (*it).to_owned()).collect();
    let page = Page { without: &without, rows: random.usize(1..12), bytes: random.usize(1..3_000) };
    assert_eq!(read(outbox.page(&page).await.unwrap()), model.page(&page), "{page:?}");
    let all = Page { without: &[], rows: 10_000, bytes: usize::MAX >> 1 };
    assert_eq!(read(outbox.page(&all).await.unwrap()), model.page(&all));
    assert_eq!(outbox.has_rows().await.unwrap(), !model.page(&all).is_empty());
    let listed: Vec<_> =
        outbox.list(10_000).await.unwrap().into_iter().map(|row| (row.number, row.parked_because)).collect();
    let known: Vec<_> = model.rows.iter().map(|(number, known)| (*number, known.parked.clone())).collect();
    assert_eq!(listed, known);
    let addresses: BTreeSet<String> = outbox.parked_addresses().await.unwrap().into_iter().collect();
    assert_eq!(addresses, model.parked().map(|(_, known)| known.row.address.clone()).collect());
    let status = outbox.status().await.unwrap();
    let parked = model.parked().count() as u64;
    assert_eq!((status.waiting, status.parked), (model.rows.len() as u64 - parked, parked));
    let sent: Vec<i64> = outbox.sent(10_000).await.unwrap().iter().map(|row| row.number).collect();
    assert_eq!(sent, model.sent.keys().rev().copied().collect::<Vec<_>>());
    let number = *model.rows.keys().chain(model.sent.keys()).last().unwrap_or(&1);
    let row = outbox.row(number).await.unwrap().map(|stored| stored.row);
    assert_eq!(row, model.rows.get(&number).map(|known| known.row.clone()));
    let kept = outbox.sent_row(number).await.unwrap().map(|stored| stored.row);
    assert_eq!(kept, model.sent.get(&number).cloned());
}

async fn compare(kind: Kind, seed: u64) {
    let database = Database::empty(kind).await;
    let store = open(kind, &database.address(), "mine").await;
    // Another namespace in the same tables.
    let other = open(kind, &database.address(), "other").await;
    let (mut outbox, mut model) = (store.outbox().await.unwrap(), Model::default());
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..STEPS {
        if number % 10 == 0 {
            write(&*other, &rows(&mut random)).await;
        }
        step(&*store, &mut *outbox, &mut model, &mut random).await;
        agree(&mut *outbox, &model, &mut random).await;
    }
    assert_eq!(store.forget_sent(Duration::from_secs(600), 1_000).await.unwrap(), 0, "they are new");
    assert_eq!(store.forget_sent(Duration::ZERO, 1_000).await.unwrap(), model.sent.len());
}

#[test]
fn the_outbox_does_what_its_model_does_on_sqlite() {
    run_within(Duration::from_secs(120), async {
        for seed in 1..=6 {
            compare(Kind::Sqlite, seed).await;
        }
    });
}

#[test]
fn the_outbox_does_what_its_model_does_on_postgres() {
    run_within(Duration::from_secs(120), async {
        for seed in 1..=6 {
            compare(Kind::Postgres, seed).await;
        }
    });
}
