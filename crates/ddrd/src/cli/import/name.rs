//! Under which names the images of an archive are pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ddr_oci::{Descriptor, Digest, ImageReference, Reference, RepositoryName};

use crate::archive::{Image, Name};

/// Names that an error lists.
const MAX_LISTED: usize = 10;

/// What the user says about names.
#[derive(Debug)]
pub(super) struct Naming<'a> {
    pub(super) names: &'a [ImageReference],
    pub(super) repository: Option<&'a RepositoryName>,
}

/// An image and where it goes. Without a tag it goes by its digest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) repository: RepositoryName,
    pub(super) reference: Reference,
    pub(super) root: Descriptor,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if matches!(self.reference, Reference::Tag(_)) { ':' } else { '@' };
        write!(f, "{}{mark}{}", self.repository, self.reference)
    }
}

/// What is pushed where, in the order of the archive. The error is a line for the user.
pub(super) fn wanted(images: &[Image], naming: &Naming<'_>) -> Result<Vec<Wanted>, String> {
    let roots: BTreeSet<Digest> = images.iter().map(|image| image.root.digest).collect();
    let mut all = Vec::new();
    match (naming.names, naming.repository, images.first()) {
        ([], Some(repository), _) => {
            for image in images {
                all.push(in_repository(image, repository));
            }
        }
        ([], None, _) => {
            for image in images {
                all.push(as_named(image)?);
            }
        }
        (names, _, Some(image)) if roots.len() == 1 => {
            for name in names {
                all.push(under(name, &image.root)?);
            }
        }
        (names, _, _) => {
            for name in names {
                all.push(under(name, find(images, name)?)?);
            }
        }
    }
    distinct(all)
}

/// The same image twice under one name is once; two images are a mistake.
fn distinct(all: Vec<Wanted>) -> Result<Vec<Wanted>, String> {
    let mut seen = BTreeMap::new();
    let mut kept = Vec::new();
    for wanted in all {
        match seen.insert(wanted.to_string(), wanted.root.digest) {
            None => kept.push(wanted),
            Some(digest) if digest == wanted.root.digest => {}
            Some(digest) => {
                let other = wanted.root.digest;
                return Err(format!("two images would be {wanted}: {digest} and {other}"));
            }
        }
    }
    Ok(kept)
}

fn in_repository(image: &Image, repository: &RepositoryName) -> Wanted {
    let reference = match &image.name {
        Some(Name::Tag(tag)) => Reference::Tag(tag.clone()),
        Some(Name::Full(ImageReference { reference: Reference::Tag(tag), .. })) => {
            Reference::Tag(tag.clone())
        }
        _ => Reference::Digest(image.root.digest),
    };
    Wanted { repository: repository.clone(), reference, root: image.root.clone() }
}

fn as_named(image: &Image) -> Result<Wanted, String> {
    match &image.name {
        Some(Name::Full(name)) => under(name, &image.root),
        Some(Name::Tag(tag)) => Err(format!(
            "the archive has the tag {tag} but no repository; add a name such as team/app:{tag}, or \
             --repository team/app"
        )),
        None => Err(format!(
            "the archive has no name for {}; add one such as team/app:1.0, or --repository team/app",
            image.root.digest
        )),
    }
}

/// The name without its host.
fn under(name: &ImageReference, root: &Descriptor) -> Result<Wanted, String> {
    if let Reference::Digest(digest) = &name.reference
        && *digest != root.digest
    {
        return Err(format!("{name} is not in the archive, which has {}", root.digest));
    }
    let (repository, reference) = (name.repository.clone(), name.reference.clone());
    Ok(Wanted { repository, reference, root: root.clone() })
}

/// The image of that name; a host counts only where it is given.
fn find<'a>(images: &'a [Image], name: &ImageReference) -> Result<&'a Descriptor, String> {
    let fits = |image: &Image| match (&image.name, &name.reference) {
        (_, Reference::Digest(digest)) => *digest == image.root.digest,
        (Some(Name::Full(full)), _) => {
            full.repository == name.repository
                && full.reference == name.reference
                && (name.host.is_none() || name.host == full.host)
        }
        (Some(Name::Tag(_)) | None, _) => false,
    };
    let mut found = images.iter().filter(|image| fits(image));
    let first = found.next().ok_or_else(|| {
        format!("the archive holds several images and none is {name}: {}", listed(images))
    })?;
    match found.find(|other| other.root.digest != first.root.digest) {
        None => Ok(&first.root),
        Some(_) => {
            Err(format!("the archive has more than one image for {name}; name the host too"))
        }
    }
}

fn listed(images: &[Image]) -> String {
    let names = images.iter().map(|image| match &image.name {
        Some(Name::Full(full)) => full.to_string(),
        Some(Name::Tag(tag)) => format!("the tag {tag}"),
        None => image.root.digest.to_string(),
    });
    let mut listed: Vec<String> = names.take(MAX_LISTED).collect();
    if images.len() > MAX_LISTED {
        listed.push(format!("and {} more", images.len() - MAX_LISTED));
    }
    listed.join(", ")
}
