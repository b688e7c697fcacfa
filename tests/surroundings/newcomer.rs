//! What somebody meets who starts with the README.
