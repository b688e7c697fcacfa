//! A handler may take its transaction, in any place after the message.

use postrider::{AnyTx, Context, Failure, Postgres, Sqlite, Tx, distributed};

struct Bank;

#[distributed(service = "bank", guarantee = "effectively_once", once_by = "order")]
impl Bank {
    #[distributed(command = "bank.sqlite")]
    async fn sqlite(&mut self, _: String, cx: &Context, tx: &mut Tx<Sqlite>) -> Result<(), Failure> {
        postrider::sqlx::query("SELECT 1").execute(tx.conn()).await?;
        cx.publish_key("bank.done", postrider::Payload::text(""))?;
        Ok(())
    }

    #[distributed(command = "bank.postgres")]
    async fn postgres(&self, _: String, tx: &mut Tx<Postgres>, _: &Context) -> Result<(), Failure> {
        postrider::sqlx::query("SELECT 1").execute(tx.conn()).await?;
        Ok(())
    }

    #[distributed(event = "bank.any")]
    async fn any(&self, _: String, tx: &mut AnyTx) {
        assert!(tx.conn_of::<Sqlite>().is_none() || tx.conn_of::<Postgres>().is_none());
    }
}

fn main() {
    fn is_actor<T: postrider::handler::Actor>() {}
    is_actor::<Bank>();
}
