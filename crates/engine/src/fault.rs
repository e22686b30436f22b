//! Named crash points for the crash matrix; compiled to nothing without the feature `faults`.
//!
//! `SWITCHBACK_FAULT=do:STEP:before|during|after` (or `undo:...`) kills the program there with SIGKILL.
//! `SWITCHBACK_FAULT_FAIL=do:STEP` makes a step fail after its effect. `SWITCHBACK_FAULT_REPEAT=1` performs
//! every step twice. `SWITCHBACK_FAULT_SLOW=NAME:MS` makes a moment between two looks so long.

/// Where in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Its start is journaled; nothing is touched yet.
    Before,
    /// In the middle of its effect.
    During,
    /// The effect is complete; its end is not journaled yet.
    After,
}

/// Which way the run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Forward.
    Do,
    /// Backward.
    Undo,
}

#[cfg(feature = "faults")]
mod on {
    use super::{At, Way};

    fn name(way: Way) -> &'static str {
        match way {
            Way::Do => "do",
            Way::Undo => "undo",
        }
    }

    /// Kills the program if this point is the chosen one.
    pub fn point(way: Way, step: &str, at: At) {
        let when = match at {
            At::Before => "before",
            At::During => "during",
            At::After => "after",
        };
        if std::env::var("SWITCHBACK_FAULT").is_ok_and(|v| v == format!("{}:{step}:{when}", name(way))) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }

    /// Whether the step is to fail after its effect.
    pub fn fails(way: Way, step: &str) -> bool {
        std::env::var("SWITCHBACK_FAULT_FAIL").is_ok_and(|v| v == format!("{}:{step}", name(way)))
    }

    /// Waits, where a race is only milliseconds wide.
    pub fn slow(name: &str) {
        let wanted = std::env::var("SWITCHBACK_FAULT_SLOW").unwrap_or_default();
        if let Some(ms) = wanted.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'))
            && let Ok(ms) = ms.parse()
        {
            std::thread::sleep(std::time::Duration::from_millis(ms));
        }
    }

    /// Whether every step is performed twice.
    pub fn repeats() -> bool {
        std::env::var_os("SWITCHBACK_FAULT_REPEAT").is_some()
    }
}

#[cfg(not(feature = "faults"))]
mod on {
    use super::{At, Way};
    /// Does nothing.
    pub fn point(_: Way, _: &str, _: At) {}
    /// Never.
    pub fn fails(_: Way, _: &str) -> bool {
        false
    }
    /// Does not wait.
    pub fn slow(_: &str) {}
    /// Never.
    pub fn repeats() -> bool {
        false
    }
}

pub use on::{fails, point, repeats, slow};
