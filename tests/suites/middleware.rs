//! Middleware, permissions, and what travels along.

use postrider::{
    App, Authorization, Context, Failure, FromContext, Invocation, Next, Payload, Problem, RequestError, Secret,
    SendError, distributed,
};
use postrider_tests::world::{Seen, assert_same};

#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }
}

struct Tenant(String);

impl FromContext for Tenant {
    async fn from_context(cx: &Context) -> Result<Self, Failure> {
        let tenant = cx.header_text("tenant").ok_or_else(|| Failure::rejected("no-tenant", "say for which tenant"))?;
        Ok(Self(tenant.to_owned()))
    }
}

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.guarded", permission = "alpha.write")]
    async fn guarded(&self, text: String) -> Result<String, Failure> {
        self.seen.add(text.clone());
        Ok(text)
    }

    #[distributed(command = "alpha.open")]
    async fn open(&mut self, text: String, tenant: Tenant, cx: &Context) -> Result<String, Failure> {
        self.seen.add(format!("{text} for {}", tenant.0));
        cx.publish_key("alpha.opened", Payload::text(text.clone()))?;
        Ok(text)
    }
}

/// Follows what alpha announces, and announces in turn: three hops.
#[derive(Clone, Default)]
struct Hop {
    seen: Seen<postrider::Envelope>,
}

#[distributed(service = "hop")]
impl Hop {
    #[distributed(event = "alpha.opened")]
    async fn opened(&self, text: String, cx: &Context) -> Result<(), Failure> {
        self.seen.add(cx.envelope().clone());
        cx.publish_key("hop.hopped", Payload::text(text))?;
        Ok(())
    }

    #[distributed(event = "hop.hopped")]
    async fn hopped(&self, _text: String, cx: &Context) {
        self.seen.add(cx.envelope().clone());
    }
}

fn authorization() -> impl postrider::Middleware {
    Authorization::new(|token: Option<&Secret>, permission: &str| match token {
        Some(token) if token.reveal() == "open sesame" && permission == "alpha.write" => Ok(()),
        _ => Err(Problem::new(Problem::DENIED, "ask the office for a token")),
    })
}

on_both_brokers! {
    async fn a_handler_with_a_permission_runs_only_with_the_right_token(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app().middleware(authorization())).await;
        let ask = async |token: Option<&str>| {
            let with = |o: postrider::Options| token.map_or(o.clone(), |token| o.bearer(Secret::new(token)));
            running.bus().request_key_with::<String>("alpha.guarded", Payload::text("in"), with).await
        };
        for token in [None, Some("wrong")] {
            let RequestError::Remote(error) = ask(token).await.unwrap_err() else { panic!("no remote error") };
            assert_eq!(error.problem.code, "denied");
        }
        assert_eq!(alpha.seen.count(), 0);
        assert_eq!(ask(Some("open sesame")).await.unwrap(), "in");
    }

    async fn a_permission_that_nothing_checks_is_refused_at_start(world: World) {
        let Err(error) = world.try_start(Alpha::default().app()).await else { panic!("it started") };
        assert!(error.to_string().contains("permission") && error.to_string().contains("guarded"), "{error}");
    }

    async fn middleware_runs_from_the_outermost_in_and_sees_the_outcome(world: World) {
        let (alpha, steps) = (Alpha::default(), Seen::<String>::default());
        let layer = |name: &'static str| {
            let steps = steps.clone();
            async move |invocation: &mut Invocation, next: Next<'_>| {
                steps.add(format!("{name} before {}", invocation.spec().method));
                let outcome = next.run(invocation).await;
                steps.add(format!("{name} after {}", outcome.as_str()));
                outcome
            }
        };
        let app = alpha.app().actor_middleware(layer("actor")).around(layer("app")).middleware(authorization());
        let running = world.start(app).await;
        running.bus().request_key_with::<String>("alpha.open", Payload::text("x"), |o| o.header("tenant", "acme")).await.unwrap();
        let expected = ["app before open", "actor before open", "actor after ok", "app after ok"];
        assert_eq!(steps.all(), expected);
        let error = running.bus().request_key::<String>("alpha.open", Payload::text("x")).await.unwrap_err();
        assert!(error.to_string().contains("no-tenant"), "{error}");
        assert_eq!(alpha.seen.all(), ["x for acme"]);
    }

    /// Until a retry the change of a middleware is seen, afterwards the original.
    async fn what_middleware_changes_is_gone_at_the_next_attempt(world: World) {
        let (alpha, tenants) = (Alpha::default(), Seen::<String>::default());
        let seen = tenants.clone();
        let change = async move |invocation: &mut Invocation, next: Next<'_>| {
            seen.add(invocation.envelope().headers.text("tenant").unwrap_or("none").to_owned());
            invocation.envelope_mut().headers.set("tenant", "changed");
            let outcome = next.run(invocation).await;
            if invocation.envelope().attempt < 3 {
                return postrider::Outcome::failed(postrider::handler::FailureClass::Transient, "again", "once more");
            }
            outcome
        };
        let running = world.start(alpha.app().around(change).middleware(authorization())).await;
        running.bus().request_key_with::<String>("alpha.open", Payload::text("x"), |o| o.header("tenant", "acme")).await.unwrap();
        assert_eq!(tenants.all(), ["acme", "acme", "acme"]);
        assert_eq!(alpha.seen.all(), ["x for changed", "x for changed", "x for changed"]);
    }

    async fn what_is_sent_passes_the_send_middleware_which_may_refuse(world: World) {
        let app = Alpha::default().app().middleware(authorization()).before_send(|envelope| {
            if envelope.headers.text("tenant") == Some("banned") {
                return Err(Problem::new("banned", "this tenant is banned"));
            }
            envelope.headers.set("stamped", true);
            Ok(())
        });
        let (running, hop) = (world.start(app).await, Hop::default());
        let follower = hop.clone();
        let _hop = world.start(App::new("hop").actor(move || follower.clone())).await;
        let send = |tenant: &'static str| running.bus().send_key_with("alpha.open", Payload::text("x"), move |o| o.header("tenant", tenant));
        assert!(matches!(send("banned").await, Err(SendError::Refused(_))));
        send("acme").await.unwrap();
        let envelopes = hop.seen.reach(1).await;
        assert_eq!(envelopes[0].headers.get("stamped"), Some(&true.into()));
    }

    /// T19
    async fn conversation_causation_trace_and_named_headers_travel_across_three_hops(world: World) {
        let (alpha, hop) = (Alpha::default(), Hop::default());
        let follower = hop.clone();
        let _alpha = world.start(alpha.app().middleware(authorization()).propagate(["tenant", "authorization"])).await;
        let _hop = world.start(App::new("hop").actor(move || follower.clone()).propagate(["tenant"])).await;
        let client = world.client().await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let with = |o: postrider::Options| {
            o.id("first").header("tenant", "acme").header("private", "mine").header("traceparent", trace).bearer(Secret::new("t"))
        };
        client.bus().send_key_with("alpha.open", Payload::text("x"), with).await.unwrap();
        let envelopes = hop.seen.reach(2).await;
        let (opened, hopped) = (&envelopes[0], &envelopes[1]);
        assert_eq!(opened.causation_id.as_ref().map(|id| id.as_str()), Some("first"));
        assert_eq!(hopped.causation_id.as_ref(), Some(&opened.id));
        for envelope in [opened, hopped] {
            assert_eq!(envelope.conversation_id.as_ref().map(|id| id.as_str()), Some("first"));
            assert_eq!(envelope.headers.text("tenant"), Some("acme"));
            assert_eq!(envelope.headers.text("private"), None);
            let parent = envelope.headers.text("traceparent").unwrap();
            assert!(parent.contains("0af7651916cd43dd8448eb211c80319c") && parent != trace, "{parent}");
        }
        assert_same(["alpha".to_owned(), "hop".to_owned()], [opened, hopped].map(|e| e.source.as_ref().unwrap().to_string()));
        assert_eq!((opened.bearer_token(), hopped.bearer_token()), (Some("t"), None), "identity goes on where the app says so");
        assert!(!format!("{opened:?}").contains("Bearer"), "{opened:?}");
    }
}
