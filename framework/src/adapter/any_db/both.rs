//! The databases that are built in: Sqlite and Postgres.

/// Runs the same code on whichever built-in database an `AnyTx` or a transaction of
/// `Bus::any_transaction` is of. Its value must have one type for all of them.
///
/// ```
/// use postrider::{AnyTx, any_db, sqlx};
///
/// async fn note(tx: &mut AnyTx, order: i64) -> Result<(), sqlx::Error> {
///     let insert = "INSERT INTO orders (number) VALUES ($1)";
///     any_db!(tx, conn => sqlx::query(insert).bind(order).execute(conn).await.map(drop))
/// }
/// ```
///
/// # Panics
/// If the store's adapter is not built in, which the start of a service would have refused.
#[macro_export]
macro_rules! any_db {
    ($tx:expr, $conn:ident => $run:expr) => {
        if let Some($conn) = $tx.conn_of::<$crate::adapter::sqlite::Sqlite>() {
            $run
        } else if let Some($conn) = $tx.conn_of::<$crate::adapter::postgres::Postgres>() {
            $run
        } else {
            ::std::unreachable!("the store is of a database that is built in")
        }
    };
}
