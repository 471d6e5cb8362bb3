//! Names of what is imported.

use ddr_oci::media_type::OCI_MANIFEST;
use ddr_oci::{Descriptor, Digest, ImageReference, RepositoryName};

use super::name::{Naming, wanted};
use crate::archive::{Image, Name};

fn image(content: u8, name: Option<&str>) -> Image {
    let root = Descriptor::new(OCI_MANIFEST, Digest::sha256(&[content]), 1);
    let name = name.map(|name| match name.contains(':') {
        true => Name::Full(name.parse().unwrap()),
        false => Name::Tag(name.parse().unwrap()),
    });
    Image { root, name }
}

/// What the images get to be called, or the error.
fn names(
    images: &[Image],
    given: &[&str],
    repository: Option<&str>,
) -> Result<Vec<String>, String> {
    let names: Vec<ImageReference> = given.iter().map(|name| name.parse().unwrap()).collect();
    let repository: Option<RepositoryName> = repository.map(|name| name.parse().unwrap());
    let naming = Naming { names: &names, repository: repository.as_ref() };
    wanted(images, &naming).map(|all| all.iter().map(ToString::to_string).collect())
}

#[test]
fn names_of_the_archive_lose_their_host() {
    let images = [image(1, Some("docker.io/library/app:1")), image(2, Some("a/b:2"))];
    assert_eq!(names(&images, &[], None).unwrap(), ["library/app:1", "a/b:2"]);
    assert_eq!(names(&images, &[], Some("x")).unwrap(), ["x:1", "x:2"]);
}

#[test]
fn one_image_gets_the_names_that_are_given() {
    let images = [image(1, Some("1.0")), image(1, None)];
    assert_eq!(names(&images, &["a/b:1", "host:5000/c"], None).unwrap(), ["a/b:1", "c:latest"]);
    let digest = Digest::sha256(&[1]);
    assert_eq!(names(&images, &[&format!("a@{digest}")], None).unwrap(), [format!("a@{digest}")]);
    assert_eq!(names(&images, &[], Some("x")).unwrap(), ["x:1.0".into(), format!("x@{digest}")]);
    let other = format!("a@{}", Digest::sha256(&[9]));
    assert!(names(&images, &[&other], None).unwrap_err().contains("is not in the archive"));
}

#[test]
fn of_several_images_names_choose() {
    let images =
        [image(1, Some("x.io/a/b:1")), image(2, Some("y.io/a/b:1")), image(3, Some("c/d:1"))];
    assert_eq!(names(&images, &["c/d:1", "x.io/a/b:1"], None).unwrap(), ["c/d:1", "a/b:1"]);
    assert!(names(&images, &["a/b:1"], None).unwrap_err().contains("name the host too"));
    assert!(names(&images, &["z:1"], None).unwrap_err().contains("c/d:1"));
    assert!(names(&images, &[], None).unwrap_err().contains("two images would be a/b:1"));
    assert!(
        names(&images, &["x.io/a/b:1", "y.io/a/b:1"], None).unwrap_err().contains("two images")
    );
}

#[test]
fn what_has_no_name_needs_one() {
    for images in [[image(1, None)], [image(1, Some("1.0"))]] {
        assert!(names(&images, &[], None).unwrap_err().contains("--repository"));
    }
}
