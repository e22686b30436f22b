//! Images in snapshots: a machine that has nothing, and no registry either, gets what ran.

use super::vault::{Task, Vault};
use crate::docker::Docker;
use crate::error::{EngineError, io};
use crate::home::{Home, create_dir};
use crate::runtime::Stage;
use crate::store::Progress;
use crate::world::World;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use switchback_core::backup::{IMAGES, Manifest, Part};
use switchback_core::compose::ImageName;
use switchback_core::release::{ImageRef, Release};

/// The file of an image.
fn file_name(id: &str) -> String {
    let plain: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{plain}.tar")
}

/// Writes the images of a release into a folder. Their places in the snapshot, by id.
pub fn save(
    world: &World,
    release: &Release,
    folder: &Path,
    stage: &Stage<'_>,
    progress: &Progress<'_>,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mut places = BTreeMap::new();
    let Some(docker) = world.runtime.engine() else { return Ok(places) };
    create_dir(folder)?;
    for image in release.services.values().filter_map(|s| s.image.as_ref()) {
        let name = file_name(&image.id);
        if places.insert(image.id.clone(), format!("{IMAGES}/{name}")).is_some() {
            continue;
        }
        (stage.say)(&format!("saving the image {}", image.reference));
        let path = folder.join(name);
        let mut file = BufWriter::new(File::create(&path).map_err(io("make", &path))?);
        docker.save_image(&image.id, &mut file, progress)?;
    }
    Ok(places)
}

/// Whether images of a snapshot's release are not here, and the snapshot has them.
pub fn missing(world: &World, manifest: &Manifest) -> Result<bool, EngineError> {
    let Some(docker) = world.runtime.engine() else { return Ok(false) };
    for image in manifest.release.services.values().filter_map(|s| s.image.as_ref()) {
        if manifest.images.contains_key(&image.id) && docker.image(&image.id)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Loads those images of a snapshot's release that are not here, if the snapshot has them. Their names.
pub fn load(
    home: &Home,
    world: &World,
    vault: &Vault,
    (snapshot, manifest): (&str, &Manifest),
    stage: &Stage<'_>,
    progress: &Progress<'_>,
) -> Result<Vec<String>, EngineError> {
    let mut brought = Vec::new();
    let Some(docker) = world.runtime.engine() else { return Ok(brought) };
    let folder = home.state().join("images-tmp");
    for image in manifest.release.services.values().filter_map(|s| s.image.as_ref()) {
        let Some(place) = manifest.images.get(&image.id) else { continue };
        if docker.image(&image.id)?.is_some() {
            continue;
        }
        (stage.say)(&format!("bringing back the image {}", image.reference));
        create_dir(&folder)?;
        let file = folder.join(file_name(&image.id));
        let part = Part::new(file.to_string_lossy(), place.clone());
        let task = Task::Restore { snapshot: snapshot.to_owned(), parts: vec![part] };
        let done = super::child::perform(vault, &task, progress).and_then(|_| one(docker, &file, image));
        let _ = fs::remove_dir_all(&folder);
        done?;
        brought.push(image.reference.clone());
    }
    Ok(brought)
}

/// Loads an archive, and gives the image its name, if no other one has it.
fn one(docker: &Docker, path: &Path, image: &ImageRef) -> Result<(), EngineError> {
    docker.load_image(File::open(path).map_err(io("open", path))?)?;
    if docker.image(&image.id)?.is_none() {
        return Err(EngineError::refused(
            format!("the engine made another image of the archive of {}", image.reference),
            "an engine with another kind of image store gives other ids; pull the image instead",
        ));
    }
    if let Ok(name) = ImageName::parse(&image.reference)
        && docker.image(&image.reference)?.is_none()
    {
        docker.tag(&image.id, &name.repository, name.tag())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn an_image_lies_under_a_name_without_anything_special() {
        assert_eq!(file_name("sha256:00ff"), "sha25600ff.tar");
        assert_eq!(file_name("../../etc/x"), "etcx.tar");
    }
}
