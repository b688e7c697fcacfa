//! Brokers that speak TLS: at addresses of IPv6, which have colons of their own, and whoever cannot connect is told why.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postrider::adapter::http::Management;
use postrider::adapter::rabbitmq::{RabbitMq, RabbitMqSettings};
use postrider::operate::{Doctor, Verdict};
use postrider::{App, Failure, Payload, Secret, distributed};
use postrider_tests::node::Node;
use postrider_tests::program::{err, operator_command, out, run as run_program};
use postrider_tests::world::{World, run};

#[derive(Default)]
struct Alpha;

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(query = "alpha.ask")]
    async fn ask(&self, what: String) -> Result<String, Failure> {
        Ok(what)
    }
}

/// Certificates of a test, in a folder that is gone at the end.
struct Certificates(PathBuf);

impl Certificates {
    /// A certificate for `::1`, and the one that signed it.
    fn make() -> Self {
        let folder = std::env::temp_dir().join(format!("certificates-{}", World::in_process().names.namespace()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("extensions"), "subjectAltName=IP:::1\n").unwrap();
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem && \
            openssl req -newkey rsa:2048 -nodes -subj /CN=broker -keyout key.pem -out request.pem && \
            openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem";
        let output = Command::new("sh").args(["-c", script]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "openssl: {}", err(&output));
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A free port of `::1`.
fn free_port() -> u16 {
    let listener = TcpListener::bind("[::1]:0").unwrap_or_else(|error| {
        panic!("this test needs the loopback address of IPv6 (sysctl net.ipv6.conf.lo.disable_ipv6=0): {error}")
    });
    listener.local_addr().unwrap().port()
}

/// A RabbitMQ that speaks TLS on a port of `::1`, with the certificate of this folder.
fn secure_node(certificates: &Certificates, more: &str) -> (Node, u16) {
    let (secure, mut node) = (free_port(), Node::start().unwrap());
    let [authority, certificate, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| {
        let content = std::fs::read(certificates.path(name)).unwrap();
        node.write_file(name, &content).unwrap()
    });
    let listen = format!(
        "listeners.ssl.local_v6 = ::1:{secure}\nssl_options.cacertfile = {authority}\nssl_options.certfile = {certificate}\n\
         ssl_options.keyfile = {key}\n{more}"
    );
    node.restart_with(&["rabbitmq_management"], &listen).unwrap();
    (node, secure)
}

fn free_port_v4() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_broker_is_reached_over_tls_and_its_management_api_over_http_by_an_address_of_ipv6() {
    let (certificates, management) = (Certificates::make(), free_port());
    let listen = format!("management.tcp.ip = ::1\nmanagement.tcp.port = {management}");
    let (_node, secure) = secure_node(&certificates, &listen);
    let ca = certificates.path("ca.pem");
    let world = World::on(format!("amqps://guest:guest@[::1]:{secure}"));
    let management = format!("http://guest:guest@[::1]:{management}");
    run(async {
        let trusting = |app: App| app.configure(|config| config.broker_ca = Some(ca.clone()));
        let running = world.start(trusting(App::new("alpha").actor(Alpha::default))).await;
        let answer: String = running.bus().request_key("alpha.ask", Payload::text("over IPv6")).await.unwrap();
        assert_eq!(answer, "over IPv6");
        let api = Management::new(&Secret::new(&management)).unwrap();
        let doctor = Doctor::new(running.bus()).waiting(Duration::from_millis(700)).management(api);
        let findings = doctor.examine().await.unwrap();
        let bindings: Vec<_> = findings.iter().filter(|finding| finding.check == "bindings").collect();
        assert!(!bindings.is_empty() && bindings.iter().all(|row| row.verdict == Verdict::Ok), "{findings:#?}");
        // The same from the shell.
        let mut command = operator_command(&world, &["doctor", "--management", &management, "--wait", "700ms"]);
        command.env("POSTRIDER_BROKER_CA", &ca);
        let output = tokio::task::spawn_blocking(move || run_program(&mut command)).await.unwrap();
        let rows = out(&output);
        assert!(output.status.success() && rows.contains("bindings"), "{rows}\n{}", err(&output));
        running.stop().await;
    });
}

/// What somebody reads who connects to this address.
async fn refused(address: String, ca: Option<&Path>) -> String {
    let mut settings = RabbitMqSettings::new(Secret::new(&address), "test");
    (settings.ca_file, settings.patience) = (ca.map(Path::to_owned), Duration::from_secs(5));
    match RabbitMq::connect(settings).await.map(drop) {
        Err(error) => error.to_string(),
        Ok(()) => panic!("{address} connects"),
    }
}

#[test]
fn who_cannot_connect_over_tls_is_told_what_to_write() {
    let (mine, other) = (Certificates::make(), Certificates::make());
    let listen = format!("listeners.ssl.local_v4 = 127.0.0.1:{}", free_port_v4());
    let (node, secure) = secure_node(&mine, &listen);
    let secure_v4 = listen.rsplit(':').next().unwrap();
    let (own, foreign) = (mine.path("ca.pem"), other.path("ca.pem"));
    run(async {
        for (address, ca, advice) in [
            (
                format!("amqps://guest:guest@[::1]:{secure}"),
                None,
                "name the file with the authority's certificate in POSTRIDER_BROKER_CA",
            ),
            (
                format!("amqps://guest:guest@[::1]:{secure}"),
                Some(&foreign),
                "an authority of the same name as the trusted one",
            ),
            (format!("amqps://guest:guest@127.0.0.1:{secure_v4}"), Some(&own), "write one of those as the host"),
            (format!("amqps://guest:guest@127.0.0.1:{}", node.port()), Some(&own), "the port does not speak TLS"),
            (format!("amqp://guest:guest@[::1]:{secure}"), Some(&own), "amqps://"),
        ] {
            let text = refused(address.clone(), ca.map(PathBuf::as_path)).await;
            assert!(text.contains(advice), "{address}: {advice:?} is missing in {text:?}");
            assert!(!text.contains("guest:guest") && text.lines().count() == 1, "{text}");
        }
    });
}
