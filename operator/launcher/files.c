/* The files that are kept of those that the program made, told on the log.
 *
 *   a N T X SIZE NAME   the file number T, of the Nth pattern: X says whether its owner may execute it; NAME is in base64,
 *                       relative to the folder before the pattern's first wildcard
 *   b T B TEXT          its block number B in base64; every block but the last has BLOCK bytes
 *   c T SIZE SHA256     that was all of it: how many bytes there were, and their SHA-256
 *   n N COUNT WHY ERRNO that was all of the Nth pattern: how many files it matched, and what kept the rest from being told:
 *                       "-" nothing, "large" more bytes or files than may be, "names" and "depth" a tree that is too large
 *                       to be looked through, "skipped" the program failed, "error" the system's number of an error
 *
 * Patterns are matched as `remit.backends.pathpattern` does, name by name, by descriptor and without following a link.
 * What is mounted in a folder is not in it.
 *
 * A kubelet rotates a log that grows beyond some MiB, and those who follow it lose some lines then, or many where they
 * are slow. So the log grows no faster than PACE, once it has BURST bytes.
 */

#define _GNU_SOURCE
#include "launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  MOST_PATTERNS = 32,
  MOST_PARTS = 2048,
  MOST_DEPTH = 64,
  MOST_NAMES = 1000000, /* Looked at for one pattern. */
  MOST_FILES = 50001,   /* One more than an attempt may keep, so that more are told from it. */
  NAME_BYTES = 4096,    /* Told of a longer one. A path of an artifact may have fewer. */
  BLOCK = 5952,         /* 7936 digits. */
  TOTAL_BYTES = 64 << 20,
  BURST = 6 << 20,
  PACE = 8 << 20, /* Bytes in a second. */
  WORTH_REPEATING = 1 << 20,
};

struct pattern {
  int place, why; /* The folder, or the number of the error that there is instead. */
  char *parts[MOST_PARTS];
  int count, fixed; /* Parts; those before the first wildcard. */
  unsigned long long most;
  int always;
};

/* How many parts of the pattern are behind it, in each way in which it can match. */
typedef unsigned char state[MOST_PARTS + 1];

static struct pattern *patterns[MOST_PATTERNS];
static int wanted;

static struct {
  struct pattern *pattern;
  int number; /* The pattern's. */
  unsigned long long left, total; /* Bytes that may still be told, of the pattern and of all. */
  long names, matched, files; /* Looked at and told of the pattern; told of all. */
  const char *why;
  int error;
  const char *path[MOST_DEPTH + 1];
} walk;

static int is_wild(const char *part) { return strpbrk(part, "*?") != NULL; }
static int is_folders(const char *part) { return strcmp(part, "**") == 0; }

int want_files(const char *place, const char *text, unsigned long long most, int always) {
  if (wanted == MOST_PATTERNS || !place) return -1;
  struct pattern *pattern = calloc(1, sizeof *pattern);
  char *copy = strdup(text);
  if (!pattern || !copy) return -1;
  for (char *rest, *part = strtok_r(copy, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
    if (pattern->count == MOST_PARTS) return -1;
    pattern->parts[pattern->count++] = part;
  }
  while (pattern->fixed < pattern->count && !is_wild(pattern->parts[pattern->fixed])) pattern->fixed++;
  /* Now, while the program cannot have put anything in its place. */
  pattern->place = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  pattern->why = errno;
  pattern->most = most;
  pattern->always = always;
  patterns[wanted++] = pattern;
  return 0;
}

int files_wanted(void) { return wanted; }

/* The end of the character at `text`; of what is no UTF-8, of as much as stands for one. */
static const char *after_character(const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  unsigned char first = *at++, low = 0x80, high = 0xbf;
  int more = first >= 0xf0 && first <= 0xf4 ? 3 : first >= 0xe0 && first <= 0xef ? 2 : first >= 0xc2 && first <= 0xdf;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  for (; more > 0 && *at >= low && *at <= high; more--, at++) low = 0x80, high = 0xbf;
  return (const char *)at;
}

static int matches(const char *part, const char *name) {
  const char *star = NULL, *from = NULL;
  while (*name) {
    if (*part == '*') {
      star = ++part;
      from = name;
    } else if (*part == '?') {
      part++;
      name = after_character(name);
    } else if (*part == *name) {
      part++;
      name++;
    } else if (star) {
      part = star;
      name = from = after_character(from);
    } else {
      return 0;
    }
  }
  while (*part == '*') part++;
  return !*part;
}

/* Add where a "**" stands for nothing. */
static void open_state(const struct pattern *pattern, const unsigned char *from, unsigned char *to) {
  memcpy(to, from, sizeof(state));
  for (int i = 0; i < pattern->count; i++)
    if (to[i] && is_folders(pattern->parts[i])) to[i + 1] = 1;
}

/* The state after a name; gives whether anything can match. */
static int enter(const struct pattern *pattern, const unsigned char *open, const char *name, unsigned char *after) {
  int any = 0;
  memset(after, 0, sizeof(state));
  for (int i = 0; i <= pattern->count; i++) {
    if (!open[i]) continue;
    if (i == pattern->count) {
      any = after[i] = 1; /* All that is below a folder that matches is meant. */
    } else if (is_folders(pattern->parts[i])) {
      any = after[i] = 1;
      if (i == pattern->count - 1) after[i + 1] = 1;
    } else if (is_wild(pattern->parts[i]) ? matches(pattern->parts[i], name) : !strcmp(pattern->parts[i], name)) {
      any = after[i + 1] = 1;
    }
  }
  return any;
}

/* The one name that can match, where no other one can. */
static const char *only_name(const struct pattern *pattern, const unsigned char *open) {
  const char *only = NULL;
  for (int i = 0; i <= pattern->count; i++) {
    if (!open[i]) continue;
    if (i == pattern->count || is_wild(pattern->parts[i]) || (only && strcmp(only, pattern->parts[i]))) return NULL;
    only = pattern->parts[i];
  }
  return only;
}

static int fail(const char *why, int error) {
  walk.why = why;
  walk.error = error;
  return -1;
}

/* A file or folder of `parent`, and no other filesystem that is mounted there. */
static int open_in(int parent, const char *name, int flags) {
  struct {
    uint64_t flags, mode, resolve;
  } how = {(uint64_t)(flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC), 0, 0x01 | 0x04 | 0x08}; /* NO_XDEV, NO_SYMLINKS, BENEATH */
  int fd = (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  struct stat above, found;
  fd = openat(parent, name, flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0 && !fstat(parent, &above) && !fstat(fd, &found) && above.st_dev == found.st_dev) return fd;
  int why = fd >= 0 ? EXDEV : errno;
  if (fd >= 0) close(fd);
  errno = why;
  return -1;
}

/* Whether opening has told that a name stands for something else, or nothing, since it was looked at. */
static int is_other_now(int why) {
  return why == ENOENT || why == ELOOP || why == ENXIO || why == ENOTDIR || why == EXDEV;
}

static void keep_pace(void) {
  static long long since;
  static unsigned long long before;
  if (logged() < BURST) return;
  if (!since) {
    since = milliseconds();
    before = logged();
  }
  for (;;) {
    long long due = since + (long long)((logged() - before) * 1000 / PACE) - milliseconds();
    if (due <= 0) return;
    write_pending();
    pause_for((int)due);
  }
}

static int tell_content(int fd, long number) {
  unsigned char bytes[BLOCK];
  char text[LONGEST], digest[65];
  struct sha256 hash;
  unsigned long long size = 0;
  sha256_begin(&hash);
  for (long block = 0;; block++) {
    size_t had = 0;
    while (had < sizeof bytes) {
      ssize_t some = read(fd, bytes + had, sizeof bytes - had);
      if (some < 0 && errno == EINTR) continue;
      if (some < 0) return fail("error", errno);
      if (some == 0) break;
      had += (size_t)some;
    }
    size += had;
    if (size > walk.left || size > walk.total) return fail("large", 0); /* It has grown since. */
    sha256_add(&hash, bytes, had);
    if (had > 0) {
      int length = snprintf(text, sizeof text, "%ld %ld ", number, block);
      length += (int)base64(text + length, bytes, had);
      put_record('b', text, (size_t)length);
      keep_pace();
    }
    if (had < sizeof bytes) break;
  }
  walk.left -= size;
  walk.total -= size;
  sha256_end(&hash, digest);
  put_record('c', text, (size_t)snprintf(text, sizeof text, "%ld %llu %s", number, size, digest));
  return 0;
}

static int tell_file(int parent, const char *name, int depth) {
  int fd = open_in(parent, name, O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return is_other_now(errno) ? 0 : fail("error", errno);
  struct stat about;
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(fd);
    return 0;
  }
  char path[NAME_BYTES], text[LONGEST];
  size_t length = 0;
  int from = walk.pattern->fixed == depth + 1 ? depth : walk.pattern->fixed;
  for (int i = from; i <= depth && length < sizeof path; i++) {
    int added = snprintf(path + length, sizeof path - length, i > from ? "/%s" : "%s", walk.path[i]);
    length += (size_t)added;
  }
  if (length >= sizeof path) length = sizeof path - 1;
  int at = snprintf(text, sizeof text, "%d %ld %d %llu ", walk.number, walk.files, (about.st_mode & S_IXUSR) != 0,
                    (unsigned long long)about.st_size);
  at += (int)base64(text + at, (unsigned char *)path, length);
  put_record('a', text, (size_t)at);
  keep_pace();
  long number = walk.files++;
  walk.matched++;
  int told = -1;
  if (walk.files >= MOST_FILES || (unsigned long long)about.st_size > walk.left) fail("large", 0);
  else if ((unsigned long long)about.st_size > walk.total) fail("total", 0);
  else told = tell_content(fd, number);
  close(fd);
  return told;
}

static int tell_below(int folder, int depth, const unsigned char *at);

static int tell_name(int folder, const char *name, int depth, const unsigned char *open) {
  state after;
  struct stat about;
  if (++walk.names > MOST_NAMES) return fail("names", EFBIG);
  if (!enter(walk.pattern, open, name, after)) return 0;
  if (fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? 0 : fail("error", errno);
  walk.path[depth] = name;
  if (S_ISREG(about.st_mode)) return after[walk.pattern->count] ? tell_file(folder, name, depth) : 0;
  if (!S_ISDIR(about.st_mode)) return 0;
  if (depth + 1 > MOST_DEPTH) return fail("depth", ELOOP);
  int fd = open_in(folder, name, O_DIRECTORY);
  if (fd < 0) return is_other_now(errno) ? 0 : fail("error", errno);
  int told = tell_below(fd, depth + 1, after);
  close(fd);
  return told;
}

static int tell_below(int folder, int depth, const unsigned char *at) {
  state open;
  open_state(walk.pattern, at, open);
  const char *only = only_name(walk.pattern, open);
  if (only) return tell_name(folder, only, depth, open);
  int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), told = 0; /* With a position of its own. */
  DIR *names = fd < 0 ? NULL : fdopendir(fd);
  if (!names) {
    int why = errno;
    if (fd >= 0) close(fd);
    return fail("error", why);
  }
  while (told == 0) {
    errno = 0;
    struct dirent *entry = readdir(names);
    if (!entry) {
      if (errno) told = fail("error", errno);
      break;
    }
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    told = tell_name(folder, entry->d_name, depth, open);
  }
  closedir(names);
  return told;
}

int tell_files(int succeeded) {
  char text[LONGEST];
  walk.files = 0;
  walk.total = TOTAL_BYTES;
  for (int i = 0; i < wanted; i++) {
    state begin = {1};
    walk.pattern = patterns[i];
    walk.number = i;
    walk.left = patterns[i]->most;
    walk.names = walk.matched = 0;
    walk.why = "-";
    walk.error = 0;
    if (!succeeded && !patterns[i]->always) fail("skipped", 0);
    else if (patterns[i]->place < 0) fail("error", patterns[i]->why);
    else tell_below(patterns[i]->place, 0, begin);
    put_record('n', text, (size_t)snprintf(text, sizeof text, "%d %ld %s %d", i, walk.matched, walk.why, walk.error));
  }
  return logged() > WORTH_REPEATING;
}

int open_file_in(const char *place, const char *path) {
  int folder = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = folder;
  char *copy = strdup(path);
  if (folder < 0 || !copy) return -1;
  for (char *rest, *part = strtok_r(copy, "/", &rest); part && fd >= 0; part = strtok_r(NULL, "/", &rest)) {
    int last = !rest || !*rest, above = fd;
    if (!strcmp(part, "..")) {
      errno = EINVAL;
      return -1;
    }
    fd = open_in(above, part, last ? O_NONBLOCK | O_NOCTTY : O_DIRECTORY);
    int why = errno;
    close(above);
    errno = why;
  }
  free(copy);
  struct stat about;
  if (fd < 0 || fstat(fd, &about) != 0) return -1;
  if (S_ISREG(about.st_mode)) return fd;
  errno = S_ISDIR(about.st_mode) ? EISDIR : EINVAL;
  return -1;
}
