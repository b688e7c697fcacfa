use postrider::App;

struct Invoicing;

fn main() {
    App::new("invoice").actor(|| Invoicing);
}
