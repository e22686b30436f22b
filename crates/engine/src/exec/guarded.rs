//! Programs that run beside this one, and no longer than it, however it ends.

use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// Runs a program as long as the input is open, and a little longer, so that what is under way can end by itself. The input has a number
/// of its own: what a shell runs in the background has nothing as its standard input before it is redirected.
const AS_LONG_AS_WE_LIVE: &str = r#"
exec 3<&0
"$@" <&3 3<&- & program=$!
(read -r _; sleep 2; kill "$program") <&3 3<&- >/dev/null 2>&1 & guard=$!
wait "$program"; status=$?
kill "$guard" 2>/dev/null
exit "$status"
"#;
/// How a shell says that there is no such program.
pub const NOT_INSTALLED: i32 = 127;

/// A command whose program ends with its input, which the child's owner keeps open. It has a group of its own: Ctrl-C is for us, who may
/// still need it to stop in good order.
pub fn guarded(argv: &[OsString]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", AS_LONG_AS_WE_LIVE, "sh"]).args(argv).process_group(0).stdin(Stdio::piped());
    command
}

/// Ends a process of ours and what it began; it is not waited for in vain.
pub fn end(mut child: Child) {
    drop(child.stdin.take());
    // Not reaped yet, so that its number is its own, and that of its group.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::{NOT_INSTALLED, guarded};
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    fn started(program: &[&str]) -> Child {
        let argv: Vec<_> = program.iter().map(Into::into).collect();
        guarded(&argv).stderr(Stdio::null()).spawn().expect("a shell")
    }

    #[test]
    fn a_program_that_waits_for_something_else_than_its_input_ends_with_us() {
        let mut child = started(&["sleep", "1000"]);
        // Longer than it goes on after its input has ended.
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            assert!(child.try_wait().expect("asks").is_none(), "it lives as long as its input is open");
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(child.stdin.take());
        let began = Instant::now();
        child.wait().expect("ends");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_end_of_a_program_is_told() {
        for (program, code) in [(&["sh", "-c", "exit 255"][..], 255), (&["no-such-program"], NOT_INSTALLED)] {
            assert_eq!(started(program).wait().expect("ends").code(), Some(code));
        }
    }
}
