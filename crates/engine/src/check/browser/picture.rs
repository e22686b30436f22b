//! Two pictures of a page, old and new: how much of them differs, and a picture that shows where.
//!
//! Pure. It owns what counts as different: a shade that nobody sees does not.

use png::{BitDepth, ColorType, Decoder, Encoder, Transformations};
use std::io::Cursor;

/// The largest picture that is read, in pixels of one side.
const LARGEST: u32 = 4000;
/// The least distance between two colours that is seen, squared, as in the measure of `pixelmatch` (0.1 of the largest).
const SEEN: f64 = 352.15;
/// Pixels of one side of the tiles that places are made of.
const TILE: usize = 16;

/// A picture in memory: red, green, blue, a byte each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// How two pictures differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Pixels that differ, of a million.
    pub ppm: u64,
    /// Places that differ.
    pub places: usize,
    /// A picture of it, as PNG.
    pub png: Vec<u8>,
}

impl Picture {
    /// Reads a PNG.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
        let (width, height) = (reader.info().width, reader.info().height);
        if width > LARGEST || height > LARGEST {
            return Err(format!("a picture of {width} by {height} pixels is too large"));
        }
        let size = reader.output_buffer_size().ok_or("the picture is too large")?;
        let mut buffer = vec![0; size];
        let frame = reader.next_frame(&mut buffer).map_err(|e| e.to_string())?;
        let bytes = buffer.get(..frame.buffer_size()).unwrap_or(&buffer);
        let rgb = match frame.color_type {
            ColorType::Rgb => bytes.to_vec(),
            ColorType::Rgba => bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            ColorType::Grayscale => bytes.iter().flat_map(|g| [*g; 3]).collect(),
            ColorType::GrayscaleAlpha => bytes.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
            ColorType::Indexed => return Err("the picture has a palette".to_owned()),
        };
        Ok(Self { width: width as usize, height: height as usize, rgb })
    }

    /// What is seen, without how it was packed.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.width as u64).to_le_bytes());
        hasher.update(&self.rgb);
        hasher.finalize()
    }

    fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y * self.width + x) * 3;
        self.rgb.get(at..at + 3).and_then(|p| p.try_into().ok())
    }

    /// Compares with a newer picture; `None` if nobody sees a difference.
    pub fn difference(&self, new: &Self) -> Result<Option<Difference>, String> {
        let (width, height) = (self.width.max(new.width), self.height.max(new.height));
        let tiles = (width.div_ceil(TILE), height.div_ceil(TILE));
        let mut tile = vec![false; tiles.0 * tiles.1];
        let mut shown = Vec::with_capacity(width * height * 3);
        let mut changed: u64 = 0;
        for y in 0..height {
            for x in 0..width {
                let (a, b) = (self.pixel(x, y), new.pixel(x, y));
                if is_seen(a, b) {
                    changed += 1;
                    if let Some(t) = tile.get_mut(y / TILE * tiles.0 + x / TILE) {
                        *t = true;
                    }
                    shown.extend([214, 32, 60]);
                } else {
                    // The rest, faint, so that one sees where it is.
                    let [r, g, b] = b.unwrap_or([255; 3]).map(f64::from);
                    let grey = 255.0 - (255.0 - (0.299 * r + 0.587 * g + 0.114 * b)) * 0.22;
                    shown.extend([grey as u8; 3]);
                }
            }
        }
        if changed == 0 {
            return Ok(None);
        }
        let places = places(&tile, tiles);
        for place in &places {
            frame(&mut shown, (width, height), *place);
        }
        let all = (width * height).max(1) as u64;
        Ok(Some(Difference {
            // One pixel is not nothing.
            ppm: (changed * 1_000_000).div_ceil(all),
            places: places.len(),
            png: encode(width, height, &shown)?,
        }))
    }
}

/// Whether a person sees a difference between two colours: their distance in a space that counts brightness most.
fn is_seen(a: Option<[u8; 3]>, b: Option<[u8; 3]>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    if a == b {
        return false;
    }
    let [r, g, b] = [0, 1, 2].map(|i| f64::from(a[i]) - f64::from(b[i]));
    let y = r * 0.298_895_31 + g * 0.586_622_47 + b * 0.114_482_23;
    let i = r * 0.595_977_99 - g * 0.274_176_10 - b * 0.321_801_89;
    let q = r * 0.211_470_17 - g * 0.522_617_11 + b * 0.311_146_94;
    0.5053 * y * y + 0.299 * i * i + 0.1957 * q * q > SEEN
}

/// Neighbouring tiles as one place: left, top, right, bottom in tiles.
fn places(tile: &[bool], (columns, rows): (usize, usize)) -> Vec<[usize; 4]> {
    let mut left = tile.to_vec();
    let mut found = Vec::new();
    for start in 0..left.len() {
        if !left.get(start).copied().unwrap_or(false) {
            continue;
        }
        let mut place = [columns, rows, 0, 0];
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            match left.get_mut(at) {
                Some(there) if *there => *there = false,
                _ => continue,
            }
            let (x, y) = (at % columns, at / columns);
            place = [place[0].min(x), place[1].min(y), place[2].max(x), place[3].max(y)];
            for (dx, dy) in [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1)] {
                let (Some(x), Some(y)) = (x.checked_add_signed(dx), y.checked_add_signed(dy)) else {
                    continue;
                };
                if x < columns && y < rows {
                    open.push(y * columns + x);
                }
            }
        }
        found.push(place);
    }
    found
}

/// Draws a frame around a place.
fn frame(rgb: &mut [u8], (width, height): (usize, usize), [left, top, right, bottom]: [usize; 4]) {
    let (x0, y0) = ((left * TILE).saturating_sub(2), (top * TILE).saturating_sub(2));
    let (x1, y1) = (((right + 1) * TILE + 1).min(width - 1), ((bottom + 1) * TILE + 1).min(height - 1));
    let mut dot = |x: usize, y: usize| {
        let at = (y * width + x) * 3;
        if let Some(pixel) = rgb.get_mut(at..at + 3) {
            pixel.copy_from_slice(&[230, 140, 20]);
        }
    };
    for x in x0..=x1 {
        for thick in 0..2 {
            dot(x, (y0 + thick).min(height - 1));
            dot(x, y1.saturating_sub(thick));
        }
    }
    for y in y0..=y1 {
        for thick in 0..2 {
            dot((x0 + thick).min(width - 1), y);
            dot(x1.saturating_sub(thick), y);
        }
    }
}

fn encode(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>, String> {
    let size = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, size(width)?, size(height)?);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(rgb).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: usize, height: usize) -> Picture {
        Picture { width, height, rgb: vec![250; width * height * 3] }
    }

    fn paint(picture: &mut Picture, (x, y): (usize, usize), (w, h): (usize, usize), colour: [u8; 3]) {
        for row in y..y + h {
            for column in x..x + w {
                let at = (row * picture.width + column) * 3;
                picture.rgb[at..at + 3].copy_from_slice(&colour);
            }
        }
    }

    #[test]
    fn equal_pictures_and_shades_that_nobody_sees_are_no_difference() {
        let old = plain(200, 100);
        let mut new = old.clone();
        assert_eq!(old.difference(&new).expect("compares"), None);
        paint(&mut new, (0, 0), (200, 100), [248, 250, 252]);
        assert_eq!(old.difference(&new).expect("compares"), None);
    }

    #[test]
    fn what_differs_is_counted_and_shown_in_its_places() {
        let old = plain(200, 100);
        let mut new = old.clone();
        paint(&mut new, (10, 10), (20, 5), [0, 0, 0]);
        paint(&mut new, (150, 80), (1, 1), [0, 0, 200]);
        let found = old.difference(&new).expect("compares").expect("differs");
        assert_eq!((found.ppm, found.places), (101 * 1_000_000 / 20_000, 2));
        let shown = Picture::decode(&found.png).expect("is a picture");
        assert_eq!((shown.width, shown.height), (200, 100));
        assert_eq!(shown.pixel(12, 12), Some([214, 32, 60]));
        assert_ne!(old.digest(), new.digest());
    }

    #[test]
    fn a_page_of_another_size_differs_where_one_has_nothing() {
        let found = plain(100, 100).difference(&plain(100, 120)).expect("compares").expect("differs");
        assert_eq!((found.ppm, found.places), (166_667, 1));
    }

    #[test]
    fn what_is_no_picture_is_told() {
        for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n", b"GIF89a"] {
            Picture::decode(bytes).expect_err("is no picture");
        }
        let png = encode(3, 2, &[7; 18]).expect("encodes");
        assert_eq!(Picture::decode(&png).expect("reads").rgb, vec![7; 18]);
        Picture::decode(&png[..png.len() / 2]).expect_err("is cut off");
    }
}
