//! Hears of rows that other processes have committed.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use crate::adapter::postgres::errors::{Failed, failed};
use crate::adapter::postgres::outbox::channel;
use crate::store::{News, StoreError};

/// A listening connection. It may miss news while it is opened again; the relay looks by itself as well.
pub(super) struct PgNews {
    store: Arc<str>,
    listener: PgListener,
}

impl PgNews {
    pub(super) async fn open(store: Arc<str>, namespace: &str, options: &PgConnectOptions) -> Result<Self, StoreError> {
        let opening = async {
            // The listener takes its connection from a pool, which has this one.
            let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&channel(namespace)).await?;
            Ok(listener)
        };
        let listener = opening.await.map_err(|error| failed(&store, Failed::Opening, &error))?;
        Ok(Self { store, listener })
    }
}

impl News for PgNews {
    fn next(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // `None` says that the connection was opened again: there may be news.
            let heard = self.listener.try_recv().await;
            heard.map_err(|error| failed(&self.store, Failed::Working, &error))?;
            while self.listener.next_buffered().is_some() {}
            Ok(())
        })
    }
}
