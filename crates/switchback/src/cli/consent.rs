//! A person's consent.

use super::{Exit, Global, Trouble};
use switchback_engine::give_way::wait_for_input;
use switchback_engine::home::Home;

/// Asks, unless told not to. Without a terminal nothing is taken for a yes.
pub fn confirm(global: &Global, question: &str) -> Result<bool, Trouble> {
    use std::io::IsTerminal as _;
    if global.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() || global.json {
        return Err(Trouble::usage(
            "this has to be confirmed, and there is nobody to ask",
            "say so beforehand with --yes",
        ));
    }
    let term = console::Term::stderr();
    term.write_str(&format!("{question} [y/N] "))?;
    if let Ok(home) = Home::open(&global.directory) {
        wait_for_input(&home)?;
    }
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

pub fn declined() -> Trouble {
    Trouble { exit: Exit::Usage, message: "not confirmed; nothing was done".to_owned(), hint: None }
}
