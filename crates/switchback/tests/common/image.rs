//! Images that a test builds of others, which are removed with it.

use super::docker::docker;
use std::fs;
use std::process::Command;

/// An image `REPOSITORY:TAG` whose tag no other test has. It is removed when it is dropped.
pub struct Image {
    repository: String,
    /// Its tag.
    pub tag: String,
}

impl Image {
    /// Builds it from the text of a Dockerfile, and files beside it.
    #[track_caller]
    pub fn build(repository: &str, name: &str, dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for (file, text) in files.iter().chain([&("Dockerfile", dockerfile)]) {
            fs::write(dir.path().join(file), text).expect("writes");
        }
        let tag = format!("{name}-{}", std::process::id());
        let built = Command::new("docker")
            .args(["build", "--quiet", "--tag", &format!("{repository}:{tag}")])
            .arg(dir.path())
            .env("DOCKER_BUILDKIT", "0")
            .output()
            .expect("docker is installed");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { repository: repository.to_owned(), tag }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", &format!("{}:{}", self.repository, self.tag)]);
    }
}
