//! Bytes that a client library cannot read or must not believe.
