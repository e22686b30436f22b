//! Store operations in helper containers, against a real engine.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod engine;

use engine::{STACK, Volume, bound, docker, helper_image, script, sh, shell_image, unique};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use switchback_core::data::PartChange;
use switchback_core::data::StoreKind::{Files, Sqlite};
use switchback_core::release::MountPlace;
use switchback_engine::docker::hands::{CutMode, CutPair, Hands, HandsError, Ready, Scratch, Sharing};
use switchback_engine::docker::helper::HelperImages;
use switchback_engine::docker::{Docker, DockerError, HELPER_LABEL, STACK_LABEL};
use switchback_engine::store::{Progress, StoreError};

/// Where a volume's files are, for a test on the engine's own host as root.
fn on_host(docker: &Docker, volume: &Volume<'_>) -> PathBuf {
    let path = PathBuf::from(docker.volume(volume.scratch.name()).unwrap().unwrap().mountpoint);
    assert!(path.is_dir(), "these tests run as root on the engine's host; {} is not there", path.display());
    path
}

const HOSTILE: &str = "set -e; cd /data; mkdir -p 'a/empty dir' b; echo one > 'a/new
line;rm -rf $(x)'; echo two > ./-rf; head -c 3000000 /dev/zero > big; ln big 'a/big too'; ln -s .. a/loop
ln -s /nonexistent dangling; mkfifo fifo; chown 1234:4321 -- ./-rf; chmod 4751 ./-rf; chmod 1555 'a/empty dir'
chown 77:78 /data; chmod 2750 /data";

#[test]
fn a_tree_is_cloned_between_volumes_with_everything_that_belongs_to_it() {
    let docker = docker();
    shell_image(&docker);
    let hands = Hands::new(&docker, helper_image(&docker), STACK);
    let (from, to) = (Volume::new(&docker, "from"), Volume::new(&docker, "to"));
    sh(&docker, HOSTILE, vec![bound(from.place(), "/data")]);
    let source = on_host(&docker, &from);
    xattr::set(source.join("big"), "user.note", b"\0bytes\xff").unwrap();
    xattr::set(&source, "user.root", b"of the root").unwrap();
    // cap_net_bind_service+ep, as setcap writes it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(source.join("b"), "user.x", b"y").unwrap();
    fs::write(source.join("server"), "binary").unwrap();
    xattr::set(source.join("server"), "security.capability", &capability).unwrap();

    let (from, to_place) = (from.place(), to.place());
    let last = AtomicU64::new(0);
    let report = |done, _| last.store(done, Ordering::Relaxed);
    let progress = Progress { cancel: &|| false, report: &report };
    let stats = hands.clone_cold(Files, (&from, ""), (&to_place, ""), &progress).unwrap();
    assert!(stats.bytes > 3_000_000 && last.load(Ordering::Relaxed) > 3_000_000, "{stats:?}");
    let target = on_host(&docker, &to);
    let root = target.metadata().unwrap();
    assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (77, 78, 0o2750));
    assert_eq!(root.mtime(), source.metadata().unwrap().mtime());
    assert_eq!(xattr::get(&target, "user.root").unwrap().unwrap(), b"of the root");
    assert_eq!(xattr::get(target.join("big"), "user.note").unwrap().unwrap(), b"\0bytes\xff");
    assert_eq!(xattr::get(target.join("server"), "security.capability").unwrap().unwrap(), capability);
    assert_eq!(
        target.join("big").metadata().unwrap().ino(),
        target.join("a/big too").metadata().unwrap().ino()
    );
    let special = target.join("-rf").metadata().unwrap();
    assert_eq!((special.uid(), special.gid(), special.mode() & 0o7777), (1234, 4321, 0o4751));
    assert!(!target.join(".switchback-clone").exists());

    let print = |place| hands.fingerprint(Files, (place, ""), false, &Progress::none()).unwrap();
    assert_eq!(print(&from), print(&to_place));
    let diff = hands.diff(Files, (&from, ""), (&to_place, ""), &Progress::none()).unwrap();
    assert!(diff.is_empty(), "{diff:?}");
    assert!(hands.integrity(Files, (&to_place, ""), false, &Progress::none()).unwrap().is_empty());
    assert_eq!(hands.size_bytes(Files, (&from, "big")).unwrap(), 3_000_000);
    // A volume that holds something is not cloned into.
    let error = hands.clone_cold(Files, (&from, ""), (&to_place, ""), &Progress::none()).unwrap_err();
    assert!(matches!(error, HandsError::Store(StoreError::DstExists { .. })), "{error:?}");
    hands.clone_live(Files, (&from, "a"), (&to_place, "copy of a"), &Progress::none()).unwrap();
    assert!(target.join("copy of a/empty dir").is_dir());
}

#[test]
fn a_database_in_use_is_cloned_consistently_and_asked() {
    let docker = docker();
    let hands = Hands::new(&docker, helper_image(&docker), STACK);
    let (from, to) = (Volume::new(&docker, "db"), Volume::new(&docker, "clone"));
    let path = on_host(&docker, &from).join("app.db");
    let writer = rusqlite::Connection::open(&path).unwrap();
    writer.execute_batch("pragma journal_mode=wal; create table t(a); insert into t values (1),(2)").unwrap();
    writer.execute_batch("begin immediate; insert into t values (3)").unwrap();
    assert!(path.with_file_name("app.db-wal").metadata().unwrap().len() > 0, "rows are in the -wal");
    let (from, to) = (from.place(), to.place());
    hands.clone_live(Sqlite, (&from, "app.db"), (&to, "app.db"), &Progress::none()).unwrap();
    let count = |place| hands.sql((place, "app.db"), "select count(*) from t where a > ?1", &[0.into()]);
    assert_eq!((count(&from).unwrap(), count(&to).unwrap()), (2.into(), 2.into()));
    writer.execute_batch("commit").unwrap();
    assert_eq!(count(&from).unwrap(), 3);
    let error = hands.sql((&from, "app.db"), "delete from t", &[]).unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    let print = |place, live| hands.fingerprint(Sqlite, (place, "app.db"), live, &Progress::none()).unwrap();
    assert_ne!(print(&from, true), print(&to, false));
    // A `-wal` is left behind, as by a killed service; the source stays as it is.
    std::mem::forget(writer);
    let before = fs::read(path.with_file_name("app.db-wal")).unwrap();
    assert_eq!(print(&from, false).items, 3);
    assert_eq!(fs::read(path.with_file_name("app.db-wal")).unwrap(), before);
    assert!(hands.integrity(Sqlite, (&to, "app.db"), false, &Progress::none()).unwrap().is_empty());
    let diff = hands.diff(Sqlite, (&to, "app.db"), (&from, "app.db"), &Progress::none()).unwrap();
    assert_eq!((diff.parts[0].change, diff.parts[0].rows_added), (PartChange::Changed, 1));
    fs::write(&path, "no database at all, but long enough to be taken for one".repeat(100)).unwrap();
    let error = hands.integrity(Sqlite, (&from, "app.db"), false, &Progress::none());
    assert!(
        matches!(&error, Ok(found) if !found.is_empty())
            || matches!(&error, Err(HandsError::Store(StoreError::Damaged { .. }))),
        "{error:?}"
    );
}

#[test]
fn an_export_arrives_on_this_host() {
    let docker = docker();
    shell_image(&docker);
    let hands = Hands::new(&docker, helper_image(&docker), STACK);
    let (before, after) = (Volume::new(&docker, "before"), Volume::new(&docker, "after"));
    sh(&docker, HOSTILE, vec![bound(before.place(), "/data")]);
    let (old, new) = (before.place(), after.place());
    hands.clone_cold(Files, (&old, ""), (&new, ""), &Progress::none()).unwrap();
    let change = "cd /data; echo new > added; echo changed > ./-rf; rm big; mkdir deep; head -c 20000000 /dev/zero > deep/large
ln -s added link; mkfifo pipe; chmod 700 deep";
    sh(&docker, change, vec![bound(after.place(), "/data")]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export");
    let stats = hands.export(Files, (&old, ""), (&new, ""), &out, &Progress::none()).unwrap();
    assert!(stats.total() >= 6, "{stats:?}");
    assert_eq!(fs::read_to_string(out.join("files/added")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(out.join("files/-rf")).unwrap(), "changed\n");
    assert_eq!(out.join("files/deep/large").metadata().unwrap().len(), 20_000_000);
    assert_eq!(out.join("files/deep").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_link(out.join("files/link")).unwrap(), Path::new("added"));
    let lines = fs::read(out.join("files.jsonl")).unwrap();
    assert_eq!(blake3::hash(&lines).to_hex().to_string(), stats.parts["files"].digest.as_str());
    assert!(out.join("manifest.json").exists());
    let error = hands.export(Files, (&old, ""), (&new, ""), &out, &Progress::none()).unwrap_err();
    assert!(matches!(error, HandsError::Store(StoreError::DstExists { .. })), "{error:?}");
    // What fails or is cancelled leaves nothing.
    let other = folder.path().join("other");
    let error = hands.export(Files, (&old, "nowhere"), (&new, ""), &other, &Progress::none()).unwrap_err();
    assert!(matches!(error, HandsError::Store(StoreError::NotFound { .. })), "{error:?}");
    let began = Instant::now();
    let cancel = || began.elapsed() > Duration::from_millis(50);
    let progress = Progress { cancel: &cancel, report: &|_, _| () };
    let error = hands.export(Files, (&old, ""), (&new, ""), &other, &progress).unwrap_err();
    assert!(matches!(error, HandsError::Store(StoreError::Cancelled)), "{error:?}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["export"]);
}

#[test]
fn only_scratch_can_be_written_to_and_removed() {
    let docker = docker();
    let hands = Hands::new(&docker, helper_image(&docker), STACK);
    let volume = Volume::new(&docker, "scratch");
    let place = volume.place();
    assert!(hands.make_dir((&place, "pg data"), 0o700, (70, 71)).unwrap());
    assert!(!hands.make_dir((&place, "pg data"), 0o700, (70, 71)).unwrap());
    let made = &hands.list((&place, "")).unwrap()[0];
    assert_eq!((made.name.as_str(), made.kind.as_str(), made.mode), ("pg data", "folder", 0o700));
    assert_eq!((made.uid, made.gid), (70, 71));
    fs::write(on_host(&docker, &volume).join("PG_VERSION"), "15\n").unwrap();
    assert_eq!(hands.read_file((&place, "PG_VERSION"), 100).unwrap(), b"15\n");
    assert!(hands.read_file((&place, "PG_VERSION"), 2).is_err());
    assert!(hands.exists((&place, "pg data")).unwrap() && !hands.exists((&place, "none")).unwrap());
    assert!(!hands.exists((&MountPlace::Volume(unique("none")), "")).unwrap());
    let scratch = Scratch::Volume(&volume.scratch);
    for below in ["", "..", "../x", "/etc"] {
        assert!(hands.remove(scratch, below, &Progress::none()).is_err(), "{below:?}");
    }
    hands.remove(scratch, "pg data", &Progress::none()).unwrap();
    assert!(!hands.exists((&place, "pg data")).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().to_str().unwrap();
    fs::create_dir(folder.path().join("live")).unwrap();
    fs::write(folder.path().join("live/precious"), "x").unwrap();
    assert!(hands.scratch_create(beside, "live").is_err());
    assert!(hands.scratch_open(beside, "live").is_err());
    assert!(hands.scratch_create(beside, "../live").is_err());
    let dir = hands.scratch_create(beside, "g7").unwrap();
    let data = MountPlace::Dir(format!("{}/data", dir.path()));
    let live = MountPlace::Dir(format!("{beside}/live"));
    hands.clone_cold(Files, (&live, ""), (&data, ""), &Progress::none()).unwrap();
    assert_eq!(hands.read_file((&data, "precious"), 10).unwrap(), b"x");
    let another = Hands::new(&docker, helper_image(&docker), "another");
    assert!(another.scratch_open(beside, "g7").is_err());
    assert!(another.remove(Scratch::Dir(&dir), "data", &Progress::none()).is_err());
    hands.scratch_keep(beside, "g7").unwrap();
    hands.scratch_keep(beside, "g7").unwrap();
    assert!(another.scratch_keep(beside, "g7").is_err());
    assert!(hands.scratch_keep(beside, "live").is_err(), "a folder of the user is none of ours");
    let error = hands.scratch_remove(&dir, &Progress::none()).unwrap_err();
    assert!(error.to_string().contains(&dir.path()), "{error}");
    assert!(folder.path().join("g7/data/precious").exists(), "live data was removed");
    let dir = hands.scratch_create(beside, "g8").unwrap();
    hands.make_dir((&MountPlace::Dir(format!("{}/data", dir.path())), ""), 0o755, (0, 0)).unwrap();
    hands.scratch_remove(&dir, &Progress::none()).unwrap();
    assert!(hands.scratch_open(beside, "g8").unwrap().is_none());
}

#[test]
fn blocks_are_shared_on_a_file_system_that_can() {
    let docker = docker();
    let hands = Hands::new(&docker, helper_image(&docker), STACK);
    let plain = tempfile::tempdir().unwrap();
    let Some(xfs) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR is not set");
        return;
    };
    let folder = tempfile::tempdir_in(xfs).unwrap();
    let live = folder.path().join("live");
    fs::create_dir(&live).unwrap();
    fs::write(live.join("big"), vec![7; 8 << 20]).unwrap();
    let beside = folder.path().to_str().unwrap();
    let live = MountPlace::Dir(live.to_str().unwrap().to_owned());
    let dir = hands.scratch_create(beside, "g2").unwrap();
    let place = MountPlace::Dir(dir.path());
    assert!(hands.can_reflink((&live, ""), (&place, "")).unwrap());
    let elsewhere = MountPlace::Dir(plain.path().to_str().unwrap().to_owned());
    assert!(!hands.can_reflink((&live, ""), (&elsewhere, "")).unwrap());
    // A store with nothing in it must not be the one that makes all others be copied.
    fs::create_dir(folder.path().join("empty")).unwrap();
    let empty = MountPlace::Dir(folder.path().join("empty").to_str().unwrap().to_owned());
    assert!(hands.can_reflink((&empty, ""), (&place, "")).unwrap());
    assert!(!hands.can_reflink((&empty, ""), (&elsewhere, "")).unwrap());
    let clone = MountPlace::Dir(format!("{}/live", dir.path()));
    let stats = hands.clone_cold(Files, (&live, ""), (&clone, ""), &Progress::none()).unwrap();
    assert_eq!((stats.reflinked, stats.bytes_written), (1, 0), "{stats:?}");
    assert_eq!(fs::read_dir(plain.path()).unwrap().count(), 0);
    hands.scratch_remove(&dir, &Progress::none()).unwrap();
}

#[test]
fn a_helper_that_cannot_work_says_why_and_leaves_no_container() {
    let docker = docker();
    shell_image(&docker);
    let helper = helper_image(&docker);
    let stack = unique("stack");
    let volume = Volume::new(&docker, "v");
    let place = volume.place();
    // An image without the program.
    let broken = Hands::new(&docker, engine::SHELL, &stack);
    let error = broken.exists((&place, "")).unwrap_err();
    assert!(matches!(error, HandsError::Docker(_) | HandsError::Broken { .. }), "{error:?}");
    let hands = Hands::new(&docker, &helper, &stack);
    let error = hands.size_bytes(Files, (&place, "nowhere")).unwrap_err();
    assert!(
        error.to_string().contains(&format!("{}/nowhere does not exist", volume.scratch.name())),
        "{error}"
    );
    let error = hands.size_bytes(Files, (&MountPlace::Dir("/nonexistent/x".into()), "")).unwrap_err();
    assert!(matches!(error, HandsError::Docker(DockerError::NoSuch { .. })), "{error:?}");
    let cancelled = Progress { cancel: &|| true, report: &|_, _| () };
    let error = hands.fingerprint(Files, (&place, ""), false, &cancelled).unwrap_err();
    assert!(matches!(error, HandsError::Store(StoreError::Cancelled)), "{error:?}");
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let began = Instant::now();
            assert!(hands.exists((&place, "")).unwrap());
            began.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("MEASURED hands: one round trip {:?} (median of 5), {:?} at best", times[2], times[0]);
    assert_eq!(docker.containers(&[(STACK_LABEL, &stack)]).unwrap(), []);
    // What a killed program leaves is found again.
    let mut left = script("sleep 600");
    left.labels = [(STACK_LABEL.to_owned(), stack.clone()), (HELPER_LABEL.to_owned(), "1".to_owned())].into();
    docker.run_detached(&left).unwrap();
    assert_eq!((hands.remove_leftovers().unwrap(), hands.remove_leftovers().unwrap()), (1, 0));
}

#[test]
fn a_helper_that_waits_takes_the_work_it_was_made_for_and_is_in_nobodys_way() {
    let engine = Arc::new(docker());
    shell_image(&engine);
    let ready = Ready::new(Arc::clone(&engine));
    let stack = unique("ready");
    let hands = Hands::new(&engine, helper_image(&engine), stack.clone()).with(&ready);
    let volumes: Vec<Volume<'_>> = ["from", "to", "other"].map(|n| Volume::new(&engine, n)).into();
    let places: Vec<MountPlace> = volumes.iter().map(Volume::place).collect();
    sh(&engine, "echo it > /data/file", vec![bound(places[0].clone(), "/data")]);
    let pair =
        |to: usize| [CutPair { from: (&places[0], ""), to: (&places[to], ""), record: None, leave_out: &[] }];
    let waiting = || engine.containers(&[(STACK_LABEL, stack.as_str())]).unwrap().len();
    let mut nobody = |_| Ok(());

    hands.get_ready(&pair(1)).unwrap();
    assert_eq!(waiting(), 1);
    // What is written after it started is cloned, too.
    sh(&engine, "echo later > /data/later", vec![bound(places[0].clone(), "/data")]);
    let stats = hands.cut(&pair(1), Sharing::No, CutMode::Stopped, &Progress::none(), &mut nobody).unwrap();
    assert!(stats.copies[0].bytes > 0, "{stats:?}");
    let clone = on_host(&engine, &volumes[1]);
    assert_eq!(fs::read_to_string(clone.join("later")).unwrap(), "later\n");
    assert_eq!(waiting(), 0, "it was the helper that did it, and it is gone");

    // Another mount is another helper; the one that waits goes when it is told to, and with its owner.
    hands.get_ready(&pair(1)).unwrap();
    hands.cut(&pair(2), Sharing::No, CutMode::Stopped, &Progress::none(), &mut nobody).unwrap();
    assert_eq!(waiting(), 1);
    ready.clear();
    assert_eq!(waiting(), 0);
    // One that somebody killed is not relied on, and a cancelled one stops.
    hands.get_ready(&pair(2)).unwrap();
    switchback_engine::docker::hands::remove_leftovers(&engine, &stack).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    hands.cut(&pair(2), Sharing::No, CutMode::Stopped, &Progress::none(), &mut nobody).unwrap();
    hands.get_ready(&pair(2)).unwrap();
    let cancelled = Progress { cancel: &|| true, report: &|_, _| {} };
    let error = hands.cut(&pair(2), Sharing::No, CutMode::Stopped, &cancelled, &mut nobody).unwrap_err();
    assert!(matches!(error, HandsError::Store(StoreError::Cancelled)), "{error}");
    hands.get_ready(&pair(2)).unwrap();
    drop(ready);
    assert_eq!(waiting(), 0);
}

#[test]
fn a_helper_image_that_another_version_removed_meanwhile_is_made_again() {
    let docker = docker();
    let folder = tempfile::tempdir().unwrap();
    // Its own image: a copy of the program with something behind it.
    let program = folder.path().join("switchback");
    fs::copy(engine::PROGRAM, &program).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&program).unwrap();
    file.write_all(unique("x").as_bytes()).unwrap();
    drop(file);
    let volumes: Vec<Volume<'_>> = ["from", "to"].map(|n| Volume::new(&docker, n)).into();
    let places: Vec<MountPlace> = volumes.iter().map(Volume::place).collect();
    let gone = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let hands = Hands::new(&docker, gone, STACK).of(&program);
    assert_eq!(hands.size_bytes(Files, (&places[0], "")).unwrap(), 0);
    let pair = CutPair { from: (&places[0], ""), to: (&places[1], ""), record: None, leave_out: &[] };
    let cut = |hands: &Hands<'_>| {
        hands.cut(&[pair], Sharing::No, CutMode::Stopped, &Progress::none(), &mut |_| Ok(()))
    };
    cut(&hands).unwrap();
    let error = cut(&Hands::new(&docker, gone, STACK)).unwrap_err();
    assert!(matches!(error, HandsError::Docker(DockerError::ImageMissing { .. })), "{error}");
    let made = HelperImages::default().ensure(&docker, &program).unwrap();
    docker.untag(&made).unwrap();
}

#[test]
fn what_only_says_that_something_runs_is_left_out_of_copies_of_what_runs() {
    let docker = docker();
    shell_image(&docker);
    let hands = Hands::new(&docker, helper_image(&docker), STACK);
    let volumes: Vec<Volume<'_>> = ["from", "to", "stopped"].map(|n| Volume::new(&docker, n)).into();
    let places: Vec<MountPlace> = volumes.iter().map(Volume::place).collect();
    sh(
        &docker,
        "echo it > /data/file; mkdir /data/run; echo 7 > /data/run/pid",
        vec![bound(places[0].clone(), "/data")],
    );
    let (from, to) = ((&places[0], ""), (&places[1], ""));
    let size = (!hands.can_reflink(from, to).unwrap()).then(|| hands.size_bytes(Files, from).unwrap());
    assert_eq!(hands.to_copy(from, to).unwrap(), size);
    let leave_out = ["run/pid".to_owned(), "none".to_owned()];
    let mut nobody = |_| Ok(());
    for (to, mode) in [(1, CutMode::Paused { budget_ms: 2000 }), (2, CutMode::Stopped)] {
        let pair =
            CutPair { from: (&places[0], ""), to: (&places[to], ""), record: None, leave_out: &leave_out };
        let stats = hands.cut(&[pair], Sharing::No, mode, &Progress::none(), &mut nobody).unwrap();
        let clone = on_host(&docker, &volumes[to]);
        assert!(clone.join("file").exists() && clone.join("run").is_dir());
        assert_eq!(clone.join("run/pid").exists(), mode == CutMode::Stopped);
        assert_eq!(stats.copies[0].notes.len(), usize::from(mode != CutMode::Stopped), "{stats:?}");
    }
    assert!(on_host(&docker, &volumes[0]).join("run/pid").exists(), "the original has it");
}

#[test]
fn helper_images_are_made_once_and_old_ones_are_removed() {
    let docker = docker();
    let images = HelperImages::named(&unique("images"));
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("program");
    fs::copy("/bin/true", &old).unwrap();
    let first = images.ensure(&docker, &old).unwrap();
    assert_eq!(images.ensure(&docker, &old).unwrap(), first);
    let second = images.ensure(&docker, Path::new("/bin/false")).unwrap();
    assert_ne!(first, second);
    // Those without a name, which other tests at work leave, go with it.
    assert!(images.prune(&docker, &second).unwrap() >= 1);
    assert!(docker.image(&first).unwrap().is_none() && docker.image(&second).unwrap().is_some());
    // A program that goes on meanwhile, such as a watchdog of the older version, makes its image again.
    let mut known = Some(first.clone());
    let again = images.ensure_known(&docker, &old, &mut known).unwrap();
    assert!(docker.image(&again).unwrap().is_some());
    assert_eq!(known.as_deref(), Some(again.as_str()));
    assert_eq!(images.ensure_known(&docker, &old, &mut known).unwrap(), again);
    assert!(images.prune(&docker, &second).unwrap() >= 1);
    assert_eq!(images.prune(&docker, "").unwrap(), 1);
}
