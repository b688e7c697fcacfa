//! Environments, shells, pipes, signals and logs.
