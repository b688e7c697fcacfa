//! The operator's program: `postrider --help`.

fn main() -> std::process::ExitCode {
    postrider::operate::operator::main()
}
