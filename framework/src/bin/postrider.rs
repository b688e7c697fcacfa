//! The operator's program; see `postrider --help`.

fn main() -> std::process::ExitCode {
    postrider::operate::operator::main()
}
