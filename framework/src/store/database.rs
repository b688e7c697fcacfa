//! Which database a transaction belongs to.

/// A database whose transactions handlers can take: `Tx<Sqlite>`. Implemented by the adapters.
pub trait Database: Sized + 'static {
    /// The connection on which a handler runs its statements.
    type Connection: 'static;
    /// The database's name, as in the address of a store.
    const NAME: &'static str;
}
