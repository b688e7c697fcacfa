use postrider::message::{Contract, Request};
use postrider::{Bus, Command, Context, Event, Failure, Kind, MediaType, Query, RequestError, distributed};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Command)]
#[message(key = "invoice.create", reply = Created)]
struct Create {
    order: u64,
}

#[derive(Serialize, Deserialize, Command)]
#[message(key = "invoice.archive", transient, media_type = "application/json", schema_version = 2)]
struct Archive;

#[derive(Serialize, Deserialize, Event)]
#[message(key = "invoice.created")]
struct Created {
    invoice: u64,
}

#[derive(Serialize, Deserialize, Query)]
#[message(key = "invoice.issued", reply = Vec<u64>, transient = false)]
struct Issued;

#[derive(Serialize, Deserialize, Event)]
#[message(key = "invoice.tagged")]
enum Tagged<T: Clone> {
    With(T),
    Without,
}

#[derive(Default)]
struct Invoicing {
    issued: Vec<u64>,
}

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&mut self, create: Create, cx: &Context) -> Result<Created, Failure> {
        self.issued.push(create.order);
        cx.publish(&Tagged::With(create.order))?;
        Ok(Created { invoice: create.order })
    }

    #[distributed(command = "invoice.archive")]
    async fn archive(&mut self, _: Archive) {
        self.issued.clear();
    }

    #[distributed(event = "invoice.*")]
    async fn tagged(&self, _: Tagged<u64>) -> Result<(), Failure> {
        Ok(())
    }

    #[distributed(query = "invoice.issued")]
    async fn issued(&self, _: Issued) -> Result<Vec<u64>, Failure> {
        Ok(self.issued.clone())
    }
}

async fn send(bus: &Bus) -> Result<Vec<u64>, RequestError> {
    bus.send(&Archive).await?;
    bus.publish(&Tagged::<u64>::Without).await?;
    let created: Created = bus.request(&Create { order: 1 }).await?;
    bus.publish(&created).await?;
    let archived: Result<(), RequestError> = bus.request(&Archive).await;
    archived?;
    bus.request(&Issued).await
}

fn is_answered_by<M: Request<Reply = R>, R>() {}

#[test]
fn a_contract_says_key_kind_and_answer() {
    is_answered_by::<Create, Created>();
    is_answered_by::<Archive, ()>();
    is_answered_by::<Issued, Vec<u64>>();
    assert_eq!((Create::KEY, Create::KIND), ("invoice.create", Kind::Command));
    assert_eq!((Created::KEY, Created::KIND), ("invoice.created", Kind::Event));
    assert_eq!((Issued::KEY, Issued::KIND), ("invoice.issued", Kind::Query));
    let _ = send;
}

#[test]
fn the_other_words_of_a_contract_have_defaults() {
    assert_eq!((Create::TRANSIENT, Create::MEDIA_TYPE, Create::SCHEMA_VERSION), (false, None, 0));
    assert_eq!((Archive::TRANSIENT, Archive::MEDIA_TYPE, Archive::SCHEMA_VERSION), (true, Some(MediaType::JSON), 2));
}

#[test]
fn handlers_take_their_contracts() {
    assert_eq!(super::handlers::<Invoicing>().len(), 4);
}
