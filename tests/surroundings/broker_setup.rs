//! A broker that somebody else has set up, and changes while services run.
