//! The suites, in the order in which they run.

/// What a suite needs besides Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// The program `cargo-deny`.
    CargoDeny,
    /// A RabbitMQ.
    Broker,
    /// RabbitMQ installed here, for nodes of its own.
    OwnNodes,
    /// A RabbitMQ and a PostgreSQL.
    BrokerAndDatabase,
    /// A RabbitMQ, and a Python that has pika.
    BrokerAndPython,
    /// `docker-compose` or docker's plugin; its words stand before those of the suite.
    Compose,
}

/// A part of the checks that can be run alone.
#[derive(Debug)]
pub struct Suite {
    pub name: &'static str,
    pub about: &'static str,
    pub needs: Needs,
    /// Command lines, run one after another.
    pub runs: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
    /// A heavy suite: it runs only when it is named, or with `--all`.
    pub only_with_all: bool,
}

/// Cheap suites first, so that most mistakes show early.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "format",
        about: "every file has the form that rustfmt gives it",
        needs: Needs::Nothing,
        runs: &["cargo fmt --all --check"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "clippy",
        about: "no compiler or clippy warning in any target",
        needs: Needs::Nothing,
        runs: &[
            "cargo clippy --workspace --all-targets --all-features -- -D warnings",
            "cargo clippy -p postrider --no-default-features -- -D warnings",
        ],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "tidy",
        about: "the repository keeps its own rules for files and texts",
        needs: Needs::Nothing,
        runs: &["cargo test -p postrider-tests --test tidy"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "deny",
        about: "dependencies have accepted licences and sources",
        needs: Needs::CargoDeny,
        runs: &["cargo deny check bans licenses sources"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "unit",
        about: "unit tests of all packages",
        needs: Needs::Nothing,
        runs: &["cargo test --workspace --lib --bins --all-features"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "ui",
        about: "what the compiler says to wrong uses of the macros",
        needs: Needs::Nothing,
        runs: &["cargo test -p postrider-tests --test ui"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "doc",
        about: "documentation builds without a warning, and its examples work",
        needs: Needs::Nothing,
        runs: &["cargo doc --workspace --no-deps --all-features", "cargo test --workspace --doc --all-features"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        only_with_all: false,
    },
    Suite {
        name: "suites",
        about: "services over RabbitMQ, also when it fails",
        needs: Needs::Broker,
        runs: &["cargo build --workspace --bins --examples", "cargo test -p postrider-tests --test suites"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "once",
        about: "effects that happen once: transactions, inbox and outbox, on SQLite and PostgreSQL",
        needs: Needs::BrokerAndDatabase,
        runs: &["cargo build --workspace --bins --examples", "cargo test -p postrider-tests --test once"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "surroundings",
        about: "strangers' messages, brokers that others set up, processes and shells, a newcomer's first hour",
        needs: Needs::BrokerAndPython,
        runs: &["cargo build --workspace --bins --examples", "cargo test -p postrider-tests --test surroundings"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "examples",
        about: "the examples do what their texts say",
        needs: Needs::BrokerAndPython,
        runs: &["cargo test -p postrider-tests --test examples"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "instructions",
        about: "a message costs no more instructions than it did",
        needs: Needs::Nothing,
        runs: &["cargo xtask bench --instructions"],
        environment: &[],
        only_with_all: false,
    },
    Suite {
        name: "cluster",
        about: "a cluster of RabbitMQ loses nodes under load, and nothing that was confirmed",
        needs: Needs::OwnNodes,
        runs: &["cargo test -p postrider-tests --test cluster"],
        environment: &[],
        only_with_all: true,
    },
    Suite {
        name: "compose",
        about: "docker-compose.yml is valid",
        needs: Needs::Compose,
        runs: &["config -q"],
        environment: &[],
        only_with_all: false,
    },
];

impl Suite {
    /// The command lines as a person would write them.
    pub fn lines(&self) -> Vec<String> {
        let prefix = if self.needs == Needs::Compose { "docker-compose " } else { "" };
        let variables: String = self.environment.iter().map(|(name, value)| format!("{name}={value:?} ")).collect();
        self.runs.iter().map(|line| format!("{variables}{prefix}{line}")).collect()
    }
}

/// The names of the suites that need a RabbitMQ.
pub fn with_broker() -> Vec<String> {
    let needs =
        |suite: &&Suite| matches!(suite.needs, Needs::Broker | Needs::BrokerAndDatabase | Needs::BrokerAndPython);
    SUITES.iter().filter(needs).map(|suite| suite.name.to_owned()).collect()
}

/// The named suites in their usual order. When none is named, all of them; the heavy ones only with `all`.
pub fn choose(names: &[String], all: bool) -> Result<Vec<&'static Suite>, String> {
    if let Some(unknown) = names.iter().find(|name| SUITES.iter().all(|suite| suite.name != name.as_str())) {
        let known: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        return Err(format!("no suite is called {unknown:?}; there are: {}", known.join(", ")));
    }
    let unnamed = |suite: &Suite| names.is_empty() && (all || !suite.only_with_all);
    let chosen = |suite: &&Suite| unnamed(suite) || names.iter().any(|name| name == suite.name);
    Ok(SUITES.iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[&Suite]) -> Vec<&'static str> {
        chosen.iter().map(|suite| suite.name).collect()
    }

    #[test]
    fn all_suites_but_the_heavy_ones_run_when_none_is_named() {
        assert_eq!(choose(&[], true).unwrap().len(), SUITES.len());
        let light = names(&choose(&[], false).unwrap());
        assert!(light.contains(&"suites") && !light.contains(&"cluster"), "{light:?}");
        assert_eq!(names(&choose(&["cluster".into()], false).unwrap()), ["cluster"]);
    }

    #[test]
    fn named_suites_keep_the_usual_order() {
        assert_eq!(
            names(&choose(&["unit".into(), "format".into(), "unit".into()], false).unwrap()),
            ["format", "unit"]
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = choose(&["unit".into(), "units".into()], false).unwrap_err();
        assert!(error.contains("\"units\"") && error.contains("format, clippy, tidy"), "{error}");
    }
}
