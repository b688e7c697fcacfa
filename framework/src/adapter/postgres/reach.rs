//! How sessions reach the database: straight, or through a pooler.
//!
//! A pooler in transaction mode gives a connection of the server to a client for one transaction. Nothing may be left on that
//! connection, and nothing may be expected of it. The client names its statements, and names of different clients would meet there.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row, raw_sql};

use crate::adapter::postgres::errors::{Failed, failed};
use crate::adapter::postgres::{only_known_parameters, shown};
use crate::store::StoreError;

/// Forgets the named statements that somebody has left on the server's connection.
const FORGET_STATEMENTS: &str = "DEALLOCATE ALL;";

/// How sessions reach the database.
#[derive(Clone)]
pub(super) struct Reach {
    /// The database itself.
    pub(super) direct: PgConnectOptions,
    pooler: Option<PgConnectOptions>,
}

impl Reach {
    /// # Errors
    /// When an address is not one.
    pub(super) fn of(address: &str, pooler: Option<&str>) -> Result<Self, StoreError> {
        // A pooler refuses what it does not know, and keeps no statement.
        let pooled = |options: PgConnectOptions| options.statement_cache_capacity(0).extra_float_digits(None::<i8>);
        Ok(Self { direct: parse(address)?, pooler: pooler.map(parse).transpose()?.map(pooled) })
    }

    pub(super) fn sessions(&self) -> &PgConnectOptions {
        self.pooler.as_ref().unwrap_or(&self.direct)
    }

    pub(super) fn is_pooled(&self) -> bool {
        self.pooler.is_some()
    }

    /// What a transaction begins and ends with.
    pub(super) fn around(&self) -> &'static str {
        if self.is_pooled() { FORGET_STATEMENTS } else { "" }
    }

    /// Looks whether the pooler leads to the same database.
    ///
    /// # Errors
    /// When it leads elsewhere, or does not answer.
    pub(super) async fn check(&self, direct: &mut PgConnection, store: &Arc<str>) -> Result<(), StoreError> {
        let Some(options) = &self.pooler else { return Ok(()) };
        let pooler: Arc<str> = format!("{} (store_pooler)", shown(options)).into();
        let opening = |error: &sqlx::Error| failed(&pooler, Failed::Opening, error);
        let mut connection = PgConnection::connect_with(options).await.map_err(|error| opening(&error))?;
        let behind = who(&mut connection).await.map_err(|error| opening(&error))?;
        connection.close().await.map_err(|error| opening(&error))?;
        let own = who(direct).await.map_err(|error| failed(store, Failed::Opening, &error))?;
        if own == behind {
            return Ok(());
        }
        Err(StoreError::Address {
            store: pooler.to_string(),
            reason: format!("it leads to another database than {store}; name a pooler of that one"),
        })
    }
}

fn parse(address: &str) -> Result<PgConnectOptions, StoreError> {
    only_known_parameters(address)?;
    let options = PgConnectOptions::from_str(address).map_err(|error| StoreError::Address {
        store: "postgres://…".into(),
        reason: format!("{error}; write postgres://user:password@host:5432/database"),
    })?;
    Ok(options.application_name("postrider").disable_statement_logging())
}

/// Which server, and which database of it.
async fn who(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let look = "SELECT pg_postmaster_start_time()::text || ' ' || current_database()";
    raw_sql(look).fetch_one(connection).await?.try_get(0)
}
