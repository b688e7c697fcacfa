//! The database client that the stores share, for handlers that run their own statements.

pub use sqlx;
