//! The disk hangs: the database, the access log and the levels are on a file system that is frozen for a while.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::hangs::{no_loop_is_late, watched};
use super::is_open;
use crate::support::client::head;
use crate::support::{Backend, Conn, aloud, installed};

/// A file system in a file; thawed and taken away at the end, also of a test that fails.
struct Disk {
    folder: PathBuf,
    _place: tempfile::TempDir,
    /// A process that thaws it even if this one dies: everything that touches a frozen file system waits for ever.
    insurance: Option<Child>,
}

fn run(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Disk {
    /// `None`: nobody may mount one here.
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().expect("a folder");
        let (image, folder) = (place.path().join("image"), place.path().join("disk"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        let (file, at) = (image.to_str().expect("text"), folder.to_str().expect("text"));
        let is_there = installed("mkfs.ext4")
            && installed("fsfreeze")
            && run("mkfs.ext4", &["-q", "-F", file])
            && run("mount", &["-o", "loop", file, at]);
        if !is_there {
            aloud("skipped: a disk that hangs needs root, loop devices, mkfs.ext4 and fsfreeze");
            return None;
        }
        Some(Self { folder, _place: place, insurance: None })
    }

    fn freeze(&mut self) {
        let at = self.folder.to_str().expect("text");
        let later = Command::new("sh").arg("-c").arg("sleep 30; fsfreeze -u \"$0\"").arg(at).spawn();
        self.insurance = Some(later.expect("a shell"));
        assert!(run("fsfreeze", &["-f", at]), "frozen");
    }

    fn thaw(&mut self) {
        if let Some(mut insurance) = self.insurance.take() {
            let _ = run("fsfreeze", &["-u", self.folder.to_str().expect("text")]);
            let _ = insurance.kill();
            let _ = insurance.wait();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &["-l", self.folder.to_str().expect("text")]);
    }
}

#[test]
fn a_disk_that_hangs_makes_no_loop_late() {
    let Some(mut disk) = Disk::mount() else { return };
    let backend = Backend::named("a");
    let at = |name: &str| disk.folder.join(name).display().to_string();
    let balancer = watched()
        .set("database.url", json!(format!("sqlite:{}", at("balancer.db"))))
        .set("database.timeout", json!("1m"))
        .set("log.access", json!(format!("file:{}", at("access.log"))))
        .backend(backend.address())
        .start();
    balancer.limit("127.0.3.1", 5, 5);
    let mut conn = Conn::open(balancer.address);
    disk.freeze();
    let mut calls = Vec::new();
    no_loop_is_late("disk", &balancer, |round| {
        conn.get("/").expect(200);
        // A call that writes waits on a thread of its own.
        if round % 16 == 0 && calls.len() < 24 {
            let id = format!("127.0.4.{}", calls.len());
            let body = json!({ "client_id": id, "capacity": 1, "rate_per_sec": 1 }).to_string();
            let mut call = Conn::open(balancer.admin);
            call.send(head("POST", "/limits/create", &[], Some(body.len())));
            call.send(body);
            calls.push(call);
        }
    });
    assert!(calls.iter_mut().all(is_open), "the disk does not hang");
    disk.thaw();
    for call in &mut calls {
        call.read("POST").unwrap().expect(201);
    }
    balancer.limit("127.0.3.2", 6, 6);
}
