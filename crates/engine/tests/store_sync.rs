//! The incremental copy: random trees, budgets, damage, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod sync_support;

use rustix::fs::CWD;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use switchback_engine::store::{self, Progress, StoreError, Writers};
use sync_support::{Copy, Dice, SETTLE, clear, mutate};

#[test]
fn passes_over_a_random_tree_with_random_changes_end_on_the_same_tree() {
    let one = |seed: u64| {
        let copy = Copy::new();
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..60 {
            mutate(&mut dice, &copy.src());
        }
        for round in 0..4 {
            if round != 2 {
                std::thread::sleep(SETTLE);
            }
            // Once while the tree is changing, then exactly.
            let changes = dice.roll(30);
            std::thread::scope(|scope| {
                let root = copy.src();
                let dice = &mut dice;
                scope.spawn(move || (0..changes).for_each(|_| mutate(dice, &root)));
                copy.pass(Writers::Running);
            });
            if round % 2 == 1 {
                std::thread::sleep(SETTLE);
                copy.pass(Writers::Running);
            }
            for _ in 0..dice.roll(20) {
                mutate(&mut dice, &copy.src());
            }
            copy.pass(Writers::Stopped);
            copy.assert_same(&format!("seed {seed}, round {round}"));
        }
        // Nothing changed: nothing is read, and the copy stays the same.
        std::thread::sleep(SETTLE);
        copy.pass(Writers::Running);
        let idle = copy.pass(Writers::Stopped);
        assert_eq!((idle.read, idle.written, idle.files_copied, idle.removed), (0, 0, 0, 0), "seed {seed}");
        copy.assert_same(&format!("seed {seed}, idle"));
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (1..=24).map(|seed| scope.spawn(move || one(seed))).collect();
        all.into_iter().for_each(|case| case.join().unwrap());
    });
}

#[test]
fn only_pages_that_differ_are_written_and_unchanged_files_are_not_read() {
    let copy = Copy::new();
    let big = copy.src().join("big");
    fs::write(&big, vec![1; 32 << 20]).unwrap();
    fs::write(copy.src().join("other"), vec![2; 8 << 20]).unwrap();
    std::thread::sleep(SETTLE);
    let first = copy.pass(Writers::Running);
    assert_eq!((first.bytes, first.read, first.files, first.files_copied), (40 << 20, 40 << 20, 2, 2));
    let file = File::options().write(true).open(&big).unwrap();
    file.write_all_at(b"changed", 12_345_678).unwrap();
    let second = copy.pass(Writers::Stopped);
    assert_eq!((second.read, second.written, second.files_copied), (32 << 20, 4096, 1), "{second:?}");
    copy.assert_same("after a change of one page");
}

#[test]
fn a_pass_over_its_budget_stops_and_the_copy_stays_a_base() {
    let copy = Copy::new();
    for n in 0..30 {
        fs::write(copy.src().join(n.to_string()), vec![7; 8 << 20]).unwrap();
    }
    let budget = Some(Duration::from_millis(20));
    let (src, dst, state) = (copy.src(), copy.dst(), copy.state());
    let early = Instant::now();
    let result = store::sync_pass(&src, &dst, &state, Writers::Stopped, budget, &Progress::none());
    assert!(matches!(result, Err(StoreError::OverBudget { .. })), "{result:?}");
    assert!(early.elapsed() < Duration::from_secs(2), "{:?}", early.elapsed());
    let stop = AtomicBool::new(true);
    let cancelled = Progress { cancel: &|| stop.load(Ordering::Relaxed), report: &|_, _| () };
    let result = store::sync_pass(&src, &dst, &state, Writers::Running, None, &cancelled);
    assert!(matches!(result, Err(StoreError::Cancelled)), "{result:?}");
    std::thread::sleep(SETTLE);
    let running = copy.pass(Writers::Running);
    assert!(running.estimate_next_ms < 2000, "{running:?}");
    let enough = Some(Duration::from_secs(60));
    let last = store::sync_pass(&src, &dst, &state, Writers::Stopped, enough, &Progress::none()).unwrap();
    assert_eq!(last.read, 0);
    copy.assert_same("after a pass over budget");
    store::make_durable(&dst).unwrap();
}

/// Moving a folder away and back leaves no trace on what is in it: only the record of the interrupted
/// pass tells that the copy is something else by now.
#[test]
fn a_pass_interrupted_while_folders_are_swapped_is_made_good_after_they_are_swapped_back() {
    let copy = Copy::new();
    let (one, two) = (copy.src().join("one"), copy.src().join("two"));
    for (dir, text) in [(&one, "1"), (&two, "2")] {
        fs::create_dir(dir).unwrap();
        for n in 0..4 {
            fs::write(dir.join(format!("file{n}")), format!("{text} {n}")).unwrap();
        }
        fs::hard_link(dir.join("file0"), dir.join("link")).unwrap();
    }
    fs::hard_link(one.join("file1"), two.join("other")).unwrap();
    fs::write(one.join("swap"), "a file").unwrap();
    fs::create_dir_all(two.join("swap/deep")).unwrap();
    fs::write(two.join("swap/deep/file"), "below").unwrap();
    let swap = || rustix::fs::renameat_with(CWD, &one, CWD, &two, rustix::fs::RenameFlags::EXCHANGE).unwrap();
    std::thread::sleep(SETTLE);
    let mut stopped = 0;
    for stop_at in 0..60 {
        copy.pass(Writers::Running);
        copy.assert_same("before the swap");
        let asked = AtomicU32::new(0);
        let cancel = || asked.fetch_add(1, Ordering::Relaxed) == stop_at;
        let progress = Progress { cancel: &cancel, report: &|_, _| () };
        swap();
        let result =
            store::sync_pass(&copy.src(), &copy.dst(), &copy.state(), Writers::Running, None, &progress);
        match &result {
            Ok(_) => {}
            Err(StoreError::Cancelled) => stopped += 1,
            Err(e) => panic!("{e}"),
        }
        swap();
        let last = copy.pass(Writers::Stopped);
        copy.assert_same(&format!("stopped at {stop_at}: {result:?}, then {last:?}"));
    }
    assert!(stopped > 10, "{stopped}");
}

#[test]
fn a_change_while_writers_should_be_stopped_is_an_error() {
    let copy = Copy::new();
    let file = copy.src().join("file");
    fs::write(&file, vec![1; 64 << 20]).unwrap();
    let asked = AtomicU32::new(0);
    // It is asked once per folder that is listed, and then while the file is copied.
    let cancel = || {
        if asked.fetch_add(1, Ordering::Relaxed) == 3 {
            File::options().write(true).open(&file).unwrap().write_all_at(b"x", 0).unwrap();
        }
        false
    };
    let progress = Progress { cancel: &cancel, report: &|_, _| () };
    let result = store::sync_pass(&copy.src(), &copy.dst(), &copy.state(), Writers::Stopped, None, &progress);
    assert!(asked.load(Ordering::Relaxed) > 4);
    assert!(matches!(result, Err(StoreError::Changed { .. })), "{result:?}");
    copy.pass(Writers::Stopped);
    copy.assert_same("after a change");
}

#[test]
fn a_folder_that_is_no_copy_of_ours_is_never_touched() {
    let copy = Copy::new();
    fs::write(copy.src().join("a"), "a").unwrap();
    fs::create_dir(copy.dst()).unwrap();
    fs::write(copy.dst().join("precious"), "b").unwrap();
    assert!(matches!(copy.try_pass(Writers::Stopped), Err(StoreError::DstExists { .. })));
    fs::write(copy.state(), "something else").unwrap();
    assert!(matches!(copy.try_pass(Writers::Stopped), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read_dir(copy.dst()).unwrap().count(), 1);
    let (src, progress) = (copy.src(), Progress::none());
    for (dst, state) in
        [(src.join("in"), copy.state()), (copy.dst(), src.join("s")), (copy.dst(), copy.dst().join("s"))]
    {
        let result = store::sync_pass(&src, &dst, &state, Writers::Stopped, None, &progress);
        assert!(matches!(result, Err(StoreError::Nested { .. })), "{result:?}");
    }
}

#[test]
fn a_copy_that_was_removed_or_whose_record_is_damaged_is_made_again() {
    let copy = Copy::new();
    fs::create_dir(copy.src().join("d")).unwrap();
    for n in 0..20 {
        fs::write(copy.src().join(format!("d/{n}")), n.to_string()).unwrap();
    }
    std::thread::sleep(SETTLE);
    copy.pass(Writers::Running);
    // Its inode may be used again.
    clear(&copy.dst());
    fs::create_dir(copy.dst()).unwrap();
    copy.pass(Writers::Stopped);
    copy.assert_same("after the copy was removed");
    let mut bytes = fs::read(copy.state()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(copy.state(), bytes).unwrap();
    fs::write(copy.dst().join("d/extra"), "x").unwrap();
    fs::write(copy.dst().join("d/3"), "y").unwrap();
    copy.pass(Writers::Stopped);
    copy.assert_same("after the record was damaged");
}

#[test]
fn a_single_file_is_copied_in_passes_too() {
    let copy = Copy::new();
    let src = copy.src().join("file");
    let pass = || {
        store::sync_pass(&src, &copy.dst(), &copy.state(), Writers::Stopped, None, &Progress::none())
            .unwrap();
        assert_eq!(fs::read(&src).unwrap(), fs::read(copy.dst()).unwrap());
    };
    fs::write(&src, "one").unwrap();
    pass();
    fs::write(&src, "two and more").unwrap();
    pass();
    fs::remove_file(&src).unwrap();
    fs::write(&src, "new").unwrap();
    pass();
}
