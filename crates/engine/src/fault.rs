//! Named crash points for the crash matrix; compiled to nothing without the feature `faults`.
//!
//! `SWITCHBACK_FAULT=do:STEP:before|during|after` (or `undo:...`) kills the program there with SIGKILL.
//! `SWITCHBACK_FAULT_FAIL=do:STEP` makes a step fail after its effect. `SWITCHBACK_FAULT_REPEAT=1` performs
//! every step twice.

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
    /// Never.
    pub fn repeats() -> bool {
        false
    }
}

pub use on::{fails, point, repeats};
