//! The words that masked values are made of. Lists have a power of two of entries, so that a byte chooses evenly.

/// First names.
pub const FIRST_NAMES: [&str; 32] = [
    "Ada", "Alex", "Ana", "Ben", "Cleo", "Dana", "Eli", "Emil", "Fay", "Gus", "Hana", "Ida", "Ivo", "Jan",
    "Jo", "Kai", "Lea", "Leo", "Lia", "Max", "Mia", "Nico", "Noa", "Ola", "Pia", "Rae", "Robin", "Sam",
    "Tea", "Uma", "Vera", "Yuri",
];

/// Last names.
pub const LAST_NAMES: [&str; 32] = [
    "Abel", "Baker", "Berg", "Carter", "Cole", "Dale", "Ellis", "Falk", "Fisher", "Gray", "Hale", "Holm",
    "Hunt", "Keller", "Kent", "Lane", "Lind", "Marsh", "Meyer", "Moss", "Nash", "Novak", "Page", "Park",
    "Quinn", "Reed", "Roth", "Shaw", "Stone", "Vance", "Wells", "Young",
];

/// Streets.
pub const STREETS: [&str; 16] = [
    "Abbey Road",
    "Birch Lane",
    "Canal Street",
    "Cedar Way",
    "Church Street",
    "Elm Street",
    "Garden Path",
    "High Street",
    "Hill Road",
    "Lake Drive",
    "Mill Lane",
    "North Row",
    "Park Avenue",
    "River Walk",
    "School Road",
    "Station Road",
];

/// Towns.
pub const CITIES: [&str; 16] = [
    "Ashford",
    "Bridgeton",
    "Clearwater",
    "Daleham",
    "Eastbrook",
    "Fairview",
    "Greenfield",
    "Hartley",
    "Kingsmill",
    "Lakeside",
    "Milton",
    "Newport",
    "Oakdale",
    "Riverton",
    "Stonebridge",
    "Westfield",
];

/// Nonsense, repeated to any length.
pub const LOREM: &str = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua ";
