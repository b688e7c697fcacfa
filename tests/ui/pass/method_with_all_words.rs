use postrider::distributed;
use postrider::handler::{Handlers, Scope};

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[postrider::distributed(command = "invoice.create", permission = "invoice-write")]
    pub(crate) async fn create(&self, _: ()) {}

    #[distributed(scope = "instance", event = "invoice.*")]
    async fn changed(&self, _: ()) {}
}

#[test]
fn the_words_of_a_method_are_in_the_table() {
    let handlers = Handlers::of::<Invoicing>();
    let [create, changed] = handlers.rows() else { panic!("two handlers") };
    assert_eq!((create.spec.permission, create.spec.scope), (Some("invoice-write"), Scope::Shared));
    assert_eq!((changed.spec.permission, changed.spec.scope), (None, Scope::Instance));
    assert!(create.spec.file.ends_with("method_with_all_words.rs"), "{}", create.spec.file);
    assert_eq!((create.spec.line, changed.spec.line), (9, 12));
}
