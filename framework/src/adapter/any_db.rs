//! `any_db!` runs the same code on whichever built-in database a transaction is of.

#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod both;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
mod postgres;
#[cfg(all(feature = "sqlite", not(feature = "postgres")))]
mod sqlite;
