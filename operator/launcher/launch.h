/* What the parts of the launcher share. */

#ifndef LAUNCH_H
#define LAUNCH_H

#include <stddef.h>
#include <stdint.h>

enum {
  LONGEST = 8000, /* Of the text of a record. */
};

long long milliseconds(void);
void put_record(char name, const char *text, size_t length);
void write_pending(void);
/* Wait so long; a signal is handled, and ends it. */
void pause_for(int wait);
size_t base64(char *into, const unsigned char *bytes, size_t length);
/* How many bytes the log has. */
unsigned long long logged(void);

/* The files that are wanted, in the order of the options. Each is called before the program starts. */
int want_files(const char *place, const char *pattern, unsigned long long most, int always);
int files_wanted(void);
/* Tell of them once everything is dead. Gives whether it would be worth telling it once more. */
int tell_files(int succeeded);

/* A regular file beneath `place`, without following a link; -1: there is none, and errno says why. */
int open_file_in(const char *place, const char *path);

struct sha256 {
  uint32_t state[8];
  uint64_t length;
  unsigned char block[64];
};

void sha256_begin(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const unsigned char *bytes, size_t length);
/* `text` takes 64 digits and a zero. */
void sha256_end(struct sha256 *hash, char *text);

#endif
