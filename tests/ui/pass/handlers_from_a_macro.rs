use postrider::testing::TestApp;
use postrider::{App, Bytes, Context, Failure, Payload, RequestError, distributed};

/// Literals and types that a macro passes on come in groups that nobody sees.
macro_rules! actor {
    ($name:ident, $queue:literal, $domain:literal, $key:literal, $message:ty, $context:ty, $answer:ty) => {
        struct $name;

        #[distributed(service = "store", queue = $queue, domains = [$domain])]
        impl $name {
            #[distributed(command = $key)]
            async fn handle(&self, message: $message, _: $context, _: &Context) -> Result<$answer, Failure> {
                Ok(message.len())
            }
        }
    };
}

actor!(Raw, "raw", "store", "store.raw", Bytes, &Context, usize);
actor!(Text, "text", "store", "store.text", String, &postrider::Context, usize);
actor!(Typed, "typed", "store", "store.typed", Vec<u8>, &Context, usize);

#[postrider::test]
async fn an_actor_may_come_from_a_macro() -> Result<(), RequestError> {
    let app = App::new("store").actor(|| Raw).actor(|| Text).actor(|| Typed);
    let app = TestApp::start(app).await;
    let bus = app.bus();
    let raw: usize = bus.request_key("store.raw", Payload::text("raw, as it is")).await?;
    let text: usize = bus.request_key("store.text", Payload::json("json")).await?;
    let typed: usize = bus.request_key("store.typed", Payload::json(&[1, 2, 3])).await?;
    // Types that are named in the macro or passed on to it are read alike: bytes and text as they are.
    assert_eq!((raw, text, typed), (13, 6, 3));
    app.stop().await;
    Ok(())
}
