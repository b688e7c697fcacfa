//! Dead letters in great numbers, of strangers, and without an address.
