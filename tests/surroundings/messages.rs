//! Messages of clients in other languages.
