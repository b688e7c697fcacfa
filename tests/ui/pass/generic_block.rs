use postrider::{Context, Failure, distributed};

struct Ledger<T, const SIZE: usize> {
    entries: Vec<T>,
}

#[distributed(service = "ledger")]
impl<T, const SIZE: usize> Ledger<T, SIZE>
where
    T: Clone + serde::Serialize + for<'de> serde::Deserialize<'de> + 'static,
{
    #[distributed(command = "ledger.enter")]
    async fn enter(&mut self, entry: T, _: &Context) -> Result<usize, Failure> {
        self.entries.truncate(SIZE);
        self.entries.push(entry);
        Ok(self.entries.len())
    }

    #[distributed(query = "ledger.entries")]
    async fn entries(&self, _: ()) -> Result<Vec<T>, Failure> {
        Ok(self.entries.clone())
    }
}

#[test]
fn a_block_may_be_generic() {
    let expected = ["enter: command ledger.enter", "entries: query ledger.entries"];
    assert_eq!(super::handlers::<Ledger<String, 8>>(), expected);
    assert_eq!(super::handlers::<Ledger<u64, 2>>(), expected);
}
