//! What is no longer needed goes by the clock.

mod common;

use common::Stack;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

#[test]
fn the_keeper_does_what_gc_does_when_it_is_due() {
    let stack = Stack::new(&[]);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    stack.run(&["up"]).expect(0);
    for _ in 0..3 {
        stack.run(&["down", "--yes"]).expect(0);
        stack.run(&["up"]).expect(0);
    }
    let runs = || fs::read_dir(stack.state().join("runs")).expect("lists").count();
    let before = runs();
    assert!(before > 2, "{before}");
    // As if it had been done two hours ago.
    let mark = File::create(stack.state().join("gc.done")).expect("creates");
    mark.set_modified(SystemTime::now() - Duration::from_secs(7200)).expect("sets");
    fs::write(&path, text + "\nretention: { runs: 2, gc: 1h }\n").expect("writes");
    stack.run(&["up"]).expect(0);
    stack.wait_until("it is done", Duration::from_secs(50), || runs() < before);
    stack.wait_until("it is recorded", Duration::from_secs(20), || {
        let at = fs::metadata(stack.state().join("gc.done")).and_then(|m| m.modified());
        at.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(600)))
    });
}
