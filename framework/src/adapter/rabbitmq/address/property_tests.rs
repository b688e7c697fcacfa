//! Properties of any address: it is read or refused, and its password is never shown.

use proptest::prelude::*;

use super::*;
use crate::message::Secret;

/// The password that must not be shown. No other part of an address contains it.
const SECRET: &str = "hunter2";

fn parse(text: &str) -> Result<Addresses, BrokerError> {
    Addresses::parse(&RabbitMqSettings::new(Secret::new(text), "test"))
}

/// Texts with every character that has a meaning in an address.
fn junk() -> impl Strategy<Value = String> {
    "[a-c:/?#@,%\\[\\]. &=é0-9\\\\\n-]{0,12}"
}

fn scheme() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["amqp://", "amqps://"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["", "http://", "amqp:", "amqp:/", "AMQP://", "://"]).prop_map(str::to_owned),
    ]
}

fn host() -> impl Strategy<Value = String> {
    "([a-c]{1,3}|\\[::1\\]|10\\.0\\.0\\.1)(:[0-9]{1,5})?"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]
    #[test]
    fn any_text_is_an_address_or_refused(text in prop_oneof![junk(), ".{0,40}", (scheme(), junk()).prop_map(|(a, b)| a + &b)]) {
        match parse(&text) {
            Ok(addresses) => {
                prop_assert!(!addresses.nodes.is_empty() && !addresses.shown().is_empty());
                prop_assert!(addresses.nodes.iter().all(|node| node.query.heartbeat.is_some()));
            }
            Err(error) => prop_assert!(error.to_string().contains("amqp"), "{}", error),
        }
    }

    #[test]
    fn no_password_is_ever_shown(
        scheme in scheme(), user in "[a-c]{0,3}", before in junk(), after in junk(),
        hosts in prop::collection::vec(host(), 1..3), path in "(/[a-c]{0,3})?(\\?heartbeat=[0-9a]{1,3})?",
    ) {
        let text = format!("{scheme}{user}:{before}{SECRET}{after}@{}{path}", hosts.join(","));
        let shown = match parse(&text) {
            Ok(addresses) => addresses.shown(),
            Err(error) => error.to_string(),
        };
        prop_assert!(!shown.contains(SECRET), "{} for {}", shown, text);
    }

    #[test]
    fn no_number_of_a_password_is_taken_for_a_port(end in "[#/?\\\\].{0,5}", number in 10_000..60_000_u16) {
        let text = format!("amqp://guest:{number}{end}@broker");
        let shown = match parse(&text) {
            Ok(addresses) => addresses.shown(),
            Err(error) => error.to_string(),
        };
        prop_assert!(!shown.contains(&number.to_string()), "{} for {}", shown, text);
    }

    #[test]
    fn any_password_arrives_if_it_is_percent_encoded(
        password in "\\PC{1,20}", hosts in prop::collection::vec(host(), 1..4), vhost in "[a-c]{1,5}", tls in any::<bool>()
    ) {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let ports_fit = hosts.iter().all(|host| {
            let port = host.rsplit_once(':').map_or("1", |(_, port)| port);
            port.ends_with(']') || port.parse::<u16>().is_ok()
        });
        let scheme = if tls { "amqps" } else { "amqp" };
        let read = parse(&format!("{scheme}://user:{encoded}@{}/{vhost}", hosts.join(",")));
        prop_assert_eq!(read.is_ok(), ports_fit && (cfg_tls::AVAILABLE || !tls));
        if let Ok(read) = read {
            prop_assert_eq!(read.nodes.len(), hosts.len());
            for (node, host) in read.nodes.iter().zip(&hosts) {
                prop_assert_eq!(&node.authority.userinfo.password, &password);
                prop_assert_eq!(&node.vhost, &vhost);
                prop_assert!(host.starts_with(&node.authority.host), "{} of {}", node.authority.host, host);
            }
        }
    }
}
