//! The `assistant` program: a thin shell around the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    assistant::run(std::env::args().skip(1))
}
