//! How much of what strangers made is read: one place for every limit, each with its reason.
//!
//! The largest of each kind was measured over Debian trixie's index of main (68,830 packages) and over the 489
//! packages and their modules that the three largest manifests of this project and their variants need. A limit lies
//! far above what was found there, and low enough that a build stays within its memory. Every error that a limit
//! leads to names the limit.

/// Longest path in bytes: the kernel's PATH_MAX less its NUL. Found: 182.
pub const PATH: usize = 4095;

/// Longest name of one file in bytes: the kernel's NAME_MAX. Found: 84.
pub const NAME: usize = 255;

/// The longest argument or variable that the kernel hands to a program: MAX_ARG_STRLEN of linux/binfmts.h, 32 pages, less
/// the NUL at its end.
pub const ARGUMENT: usize = (32 << 12) - 1;

/// Most directories below each other. A path of PATH_MAX bytes could have 2,048, which no program of a node walks, and
/// which walks that call themselves cannot take on the stack of a thread. Found: 14.
pub const DEPTH: usize = 256;

/// Most steps of one walk along a path and the links that it crosses. The kernel lets 40 links of 2,048 parts each go,
/// and a tree may have a link for every name. Found: 20.
pub const STEPS: usize = 1024;

/// Most steps of all walks along paths in one tree, links on the way followed. As many take some ten
/// seconds.
pub const WALKED: u64 = 100_000_000;

/// Most names that a link of a finished tree leads over, with those of the links behind it. Each link of a tree is followed
/// several times. Found: 20.
pub const WAY: usize = 512;

/// Most extension headers before one member of a tar archive: long name, long target and pax records. Found: 1.
pub const EXTENSIONS: usize = 16;

/// Most names of one tree, directories that stand above a member only included. Each takes 1.1 KB of memory in a build
/// (measured with 380,000 empty files), so that a build with as many stays below 300 MB. Found: 5,210 in a package, and
/// some 30,000 in a root.
pub const NODES: usize = 200_000;

/// Most bytes of all paths, targets and attributes of one tree together. Found: 409 KB in a package.
pub const NAMES: u64 = 32 << 20;

/// Bytes that a file's first attribute counts for besides its name and its value, and each further one: a map of them is
/// made twice, of the archive and of the tree.
pub const XATTR_COST: [u64; 2] = [1024, 128];

/// Most names of a node's root with all of its containers. Each takes some 0.5 KB of memory in a build: with 366,000, of
/// ten images, one had 240 MiB at its most. Found: 10,700, and 36,000 in an image with the modules of an application.
pub const ROOT_NODES: usize = 400_000;

/// Most names of a root that the builder adds something to, what lines of tmpfiles.d copy and what units are enabled by among
/// them: what a root may have, and as much as is ever added.
pub const ADDED_TO: usize = ROOT_NODES + 20_000;

/// Most bytes of all paths of such a root, which no build holds all at once. Those of ten images have 70 MB.
pub const ROOT_NAMES: u64 = 128 << 20;

/// Most bytes of the attributes of one file, names included: the kernel's XATTR_LIST_MAX and XATTR_SIZE_MAX. Found:
/// 20, the capabilities of ping.
pub const XATTRS: usize = 64 << 10;

/// Most bytes that a file has which is read into memory whole, such as a list of users or a kernel. Found: 12 MB, a
/// kernel.
pub const WHOLE_FILE: u64 = 64 << 20;

/// Most bytes of a file that is read to work with it: a unit, a list of users, what modules a kernel has. Found: 60 KB, of
/// a kernel's built-in modules.
pub const CONFIGURATION: u64 = 4 << 20;

/// Most bytes of all such files of one tree, each counted as often as it is read. Found: 597 KB, of node.yaml, and 595 KB
/// of examples/web.yaml.
pub const READ: u64 = 64 << 20;

/// Most lines that say something of all files of one kind, such as tmpfiles.d. Each takes 800 bytes of memory (measured with
/// 250,000), in several rounds.
pub const LINES: usize = 50_000;

/// Most lines of all files of sysusers.d, and of each of base-passwd's. There are 999 numbers for accounts of the system.
pub const ACCOUNTS: usize = 5_000;

/// Most units that are started at boot, or by what is. Found: 280 files of units, in systemd.
pub const UNITS: usize = 10_000;

/// Most files of drop-ins that are looked at for all units, each unit's own and those of its kind.
pub const DROP_INS: usize = 100_000;

/// Most bytes of a file of users and passwords. Each of its words can take ten times as much.
pub const CREDENTIALS: u64 = 1 << 20;

/// Most bytes of all certificates of authorities that an image, or a builder, trusts. Found: 220 KB.
pub const CERTIFICATES: u64 = 4 << 20;

/// Most bytes that one kernel module or firmware file unpacks to. Found: 30 MB, amdgpu.
pub const MODULE: u64 = 64 << 20;

/// Most bytes of headers, notes and names that are read of an ELF file. Found: 1,828, and a few names.
pub const ELF: u64 = 256 << 10;

/// Most bytes of the names of libraries that all ELF files of a root ask for. Found: 210 KB, of 2,399 files.
pub const LIBRARIES: usize = 16 << 20;

/// Most steps of finding the libraries that all programs load, each library that a file asks for being one, and each part
/// of a path of its own at which it is looked for four. Found: 4,068,819, of 688 packages with LibreOffice among them.
pub const LOADS: usize = 24_000_000;

/// Most directories that ld.so.conf and all that it includes name. Found: 4.
pub const LOADER_FOLDERS: usize = 1_000;

/// Most files that ld.so.conf includes, one that is included twice counted twice. Found: 4.
pub const LOADER_FILES: usize = 1_000;

/// Most names in the directories that ld.so.conf leads to, a directory counted as often as it is looked at. Found: 3,900.
pub const LOADER_NAMES: usize = 1_000_000;

/// From how many bytes on a file that was decompressed into memory is alone there, whatever the number of threads. Found:
/// two modules of 4,230 are larger, amdgpu with 30 MB and i915 with 10 MB.
pub const ALONE: u64 = 8 << 20;

/// Most kernel modules. Found: 3,240, and 4,400 in Debian's largest kernel.
pub const MODULES: usize = 10_000;

/// Most aliases, symbols and the like that one module names. Found: 1,998.
pub const FACTS: usize = 100_000;

/// Most bytes of memory that all aliases, symbols and the like of all modules take. Found: 17 MB, for 209,955 of them.
pub const FACT_BYTES: usize = 64 << 20;

/// Longest alias or symbol in bytes: the kernel gives a device's alias 2 KiB. Found: 98.
pub const FACT: usize = 2048;

/// Most modules that one module needs, directly or by way of others. Found: 28.
pub const NEEDED: usize = 500;

/// Most bytes that all modules of a kernel unpack to, each name of a file counted. Found: 516 MB, of Debian's largest
/// kernel.
pub const MODULE_BYTES: u64 = 2 << 30;

/// Most bytes of all indexes of a kernel's modules, which keller writes as depmod does. Found: 1.4 MB in the largest of them,
/// modules.alias.
pub const MODULE_INDEXES: usize = 64 << 20;

/// Most files of firmware that all modules of a kernel declare, what patterns stand for counted. Found: 2,352
/// names.
pub const FIRMWARE_FILES: usize = 20_000;

/// Most steps of finding what patterns of firmware stand for: the bytes of each, times the names in its directory. There are
/// 12 patterns.
pub const FIRMWARE_LOOKS: usize = 10_000_000;

/// Most bytes that the archives of an initramfs unpack to when an image is inspected. Found: 12 MB, and up to 32 MiB of
/// firmware can be added.
pub const INITRAMFS: u64 = 128 << 20;

/// Most memory that all decompressors of the process hold together, in bytes; one that asks for more waits for others.
/// Found: `xz -6`, dpkg-deb's default, takes 9 MiB, and `xz -9` takes 65 MiB.
pub const WINDOWS: u64 = 128 << 20;

/// Largest window of one decompressor, in bytes: that of `zstd --long` and `zstd --ultra -22`; a dictionary of
/// `xz -9` has half of it.
pub const WINDOW: u64 = 128 << 20;

/// Most streams of one bzip2 file. Each takes 0.1 ms, however little is in it. pbzip2 makes one for each 900 KB.
pub const STREAMS: usize = 20_000;

/// Longest line of a package index in bytes. Found: 75,649, the Provides of a Rust crate.
pub const INDEX_LINE: usize = 1 << 20;

/// Most lines of a package index, each of which is looked at. The largest index that was found has 57 MB, and some 30 bytes
/// in a line.
pub const INDEX_LINES: u64 = 20_000_000;

/// Most bytes of a file that is fetched, whose size may be known to its server alone. Found: 3.2 GB, the largest package of
/// main.
pub const DOWNLOAD: u64 = 16 << 30;

/// Most bytes of a package index, as it is fetched and compressed. Found: 9.6 MB.
pub const INDEX_FETCHED: u64 = 32 << 20;

/// Most bytes of a package index that is not compressed, as small archives have it. Found: 57 MB, of a large one.
pub const INDEX_PLAIN: u64 = 128 << 20;

/// Most bytes that a package index unpacks to. Found: 57 MB.
pub const INDEX: u64 = 1 << 30;

/// Most bytes of an index that are kept: names, versions and relations. Found: 20 MB.
pub const INDEX_KEPT: u64 = 64 << 20;

/// Most packages of all indexes together, each version counted. Each takes some 300 bytes. Found: 73,900, of trixie with
/// its updates.
pub const INDEX_PACKAGES: usize = 300_000;

/// Most names that all packages of all indexes provide together. Found: 68,640.
pub const INDEX_PROVIDED: usize = 500_000;

/// Most versions of one package, and most packages that provide one name, over all indexes. Found: 8 and 263.
pub const INDEX_ALIKE: usize = 2_000;

/// Most steps of the choice of packages, a package that meets a relation being one, and a round of the solver 5,000.
/// There is about a round for each package that is chosen. Found: 1.9 million, of node.yaml with 136 packages, and 18.1
/// million of a manifest with a desktop, TeX, Java and an office suite besides a node's parts. What a solver remembers grows
/// with its steps: four times as many took 406 MiB for 2,000 packages that are all in conflict.
pub const SOLVER: u64 = 50_000_000;

/// Most bytes of a signed release. Found: 200 KB.
pub const RELEASE: u64 = 16 << 20;

/// Most lines of a signed release. Found: 1,592.
pub const RELEASE_LINES: usize = 100_000;

/// Most bytes of all signatures of a release, as they stand in it: whoever keeps a mirror can add any number, each of which is
/// verified. Found: 1,760.
pub const SIGNATURES: usize = 64 << 10;

/// Most bytes of a file that a person writes by hand or a program writes for keller: `.meta`, a lock, keys,
/// configuration. Found: 300 KB, a lock.
pub const TEXT: u64 = 16 << 20;

/// Most values of a JSON document whose shape is anybody's: TUF metadata, the record of a root, the documents of a
/// container's archive. Two of them can take 660 bytes, as `{"":0}` does. Found: 14,000, the list of a thousand releases.
pub const JSON_VALUES: usize = 200_000;

/// Most values of a lock, of which one takes at most 100 bytes. Found: 6,000, of a manifest with three containers.
pub const LOCK_VALUES: usize = 300_000;

/// Most bytes of all roots of trust that a node follows in one go, each of which it keeps and verifies by all its
/// signatures. Found: 3 KB in one root, of which a node follows 1,024.
pub const ROOTS: u64 = 4 << 20;

/// Most values of all files of a manifest together, recipes of containers included, after aliases are expanded. Found: 312,
/// in the largest manifest that ships, with all that it includes.
pub const VALUES: usize = 50_000;

/// Most bytes of these values, what is anchored or repeated by an alias counted each time. Found: 7 KB.
pub const VALUE_BYTES: usize = 16 << 20;

/// Most mistakes of one manifest that are told. Nobody mends more at once.
pub const MISTAKES: usize = 500;

/// Most bytes of a few words that an image says of itself: os-release, a kernel command line. Found: 267.
pub const WORDS: u64 = 64 << 10;

/// Most bytes of the record of how a root was made, which is read as JSON of any shape. Found: 4,262,
/// of 136 packages.
pub const RECORD: u64 = 2 << 20;

/// Most boot entries of an ESP that are looked at. Found: 2.
pub const ENTRIES: usize = 100;

/// Most bytes of a program that is named by `--keller`. Found: 30 MB, and some 300 MB of a debug build.
pub const PROGRAM: u64 = 1 << 30;

/// Most bytes of a file of an overlay or of `files` that is held in memory. Found: nearly all are smaller.
pub const SMALL_FILE: u64 = 256 << 10;

/// Most bytes of an overlay's small files that are held in memory together; what comes after stays on the disk.
pub const HELD: u64 = 32 << 20;

/// Most bytes that take no room on the disk of a file that stays there, and of all files of an overlay: each of them is read,
/// and a hole of terabytes costs nothing to make.
pub const HOLES: u64 = 16 << 30;

/// Most bytes of a file system's image that are held in memory while it is read: directories, links, attributes, and
/// files whose end lies between inodes, which keller's own images have none of. Found: 3 MB.
pub const HELD_OF_IMAGE: u64 = 128 << 20;

/// Most bytes of all JSON documents of a container's archive together, one that is read twice counted twice. By their form,
/// each layer has some 300 bytes in them (a digest in the configuration, a line of its history, a descriptor in the
/// manifest), so that an image of 127 layers, the most that Docker builds, has 40 KB.
pub const DOCUMENTS: u64 = 8 << 20;

/// Most layers of a container's image: overlayfs mounts 500, and Docker builds 127.
pub const LAYERS: usize = 500;

/// Most bytes that all layers of one image unpack to, with the archive around them, however they are compressed. Found:
/// 8 GB in images of machine learning, which no root holds.
pub const IMAGE: u64 = 16 << 30;

/// What a container's archive may always unpack to, in bytes, however small it is, and with all of its layers.
pub const IMAGE_SLACK: u64 = 256 << 20;

/// What all packages of a build may unpack to, in bytes, besides [`RATIO`] times the size of each. Found: 610 MB, of
/// librocblas0-tests-data alone; the second in this, of all of main, has 165 MB.
pub const PACKAGES_SLACK: u64 = 1 << 30;

/// What a raw disk in one frame of zstd may always unpack to, in bytes, besides [`RATIO`] times its size. Found: 813 MB, of an
/// image that has 60 MB in it; kernel and boot loader alone are some 25 MB that do not get smaller.
pub const DISK_SLACK: u64 = 1 << 30;

/// Most frames of a raw disk that is compressed, as `keller build` makes one for 4 MiB.
pub const FRAMES: usize = 1_000_000;

/// How many times its own size a package or an image may unpack to, besides its slack. Found: 61, of a package of 34 MB, and
/// more of a few small ones, for which there is the slack.
pub const RATIO: u64 = 100;

/// Most paths that are a link in one package and a directory in another, and settled as dpkg does. Found: 6, of merging
/// /bin and /lib with those in /usr.
pub const MIXED: usize = 64;

/// Most packages that have a file of one name, of which `Replaces` may let one stay. Found: 2.
pub const CLAIMS: usize = 16;

/// Most pairs of a dependency and a package that meets it, over all packages of a root. Found: 4,763, of 719 packages.
pub const RELATIONS: usize = 10_000_000;

/// Most packages of one root or container. Found: 489.
pub const PACKAGES: usize = 5_000;

/// Most devices of a machine whose drivers are looked for, each among all aliases of a kernel. Found: 480 identifiers, of
/// a server with two sockets.
pub const DEVICES: usize = 5_000;

/// Most bytes of a unified kernel image, which is kept in memory, twice. Found: 70 MiB, that of a kernel with all firmware
/// and a systemd initramfs.
pub const KERNEL_IMAGE: u64 = 160 << 20;

/// Most bytes of the microcode that an image carries. Found: 16 MB, all of Intel's and AMD's.
pub const MICROCODE: u64 = 64 << 20;

/// Most bytes that one package unpacks to, whatever it says of itself. Found: 6.5 GiB in main, 204 MB in a manifest.
pub const PACKAGE: u64 = 16 << 30;

/// Most bytes that are kept of a package besides its data: all names, and 64 bytes for each.
pub const PACKAGE_INDEX: u64 = NAMES + 64 * NODES as u64 + CONTROL;

/// Most members of a package's control archive. Found: 11.
pub const CONTROL_MEMBERS: usize = 1000;

/// Most bytes of a package's control archive, which is read into memory. Found: 502 KB; md5sums grow with the package.
pub const CONTROL: u64 = 32 << 20;

/// Most words of a package's scripts that do something to the system, each once. Real scripts have some
/// ten.
pub const ACTIONS: usize = 10_000;

/// Most bytes of one answer of etcd, of which it takes 1.5 MiB in a request. A member in a list of them takes 90 bytes of
/// memory where its message has two.
pub const ETCD_ANSWER: usize = 2 << 20;

/// Most members, with their addresses, and most alarms, that are taken of one etcd. Found: 5; more than 7 is unwise.
pub const ETCD_MEMBERS: usize = 64;

/// Most letters of a word of etcd's that is shown: a member's name, a version, a refusal. Found: 150, a refusal.
pub const ETCD_WORD: usize = 1000;

/// Most bytes of a snapshot of etcd, whose database has 2 GiB by default and at most 8 GiB as its makers advise.
pub const SNAPSHOT: u64 = 16 << 30;

/// Most threads that can be asked for: more than any machine has processors that help here.
pub const THREADS: usize = 1024;

/// Most bytes of one file in it that is read: `control`, a script. Found: 15 KB.
pub const CONTROL_FILE: usize = 1 << 20;

/// Most keys of root: a root document with as many, each signing twice in a rotation, stays below the 256 KiB that
/// nodes read of it.
pub const ROOT_KEYS: u64 = 64;
