// From the blocks of a GGUF file to panels. Block layouts: ggml-quants.c of llama.cpp (MIT).
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "half.h"
#include "weight.h"

namespace nkat {
namespace {

// One block of one row, decoded: integers as they are packed, one byte each, and what scales them.
struct Block {
  uint8_t q[256];
  uint16_t d = 0, m = 0;
  uint8_t scales[16], mins[16];
};

void low_then_high(const uint8_t* bytes, int count, uint8_t* q) {
  for (int i = 0; i < count; ++i) q[i] = bytes[i] & 15;
  for (int i = 0; i < count; ++i) q[count + i] = bytes[i] >> 4;
}

void fifth_bits(const uint8_t* at, uint8_t* q) {
  uint32_t high;
  std::memcpy(&high, at, 4);
  for (int i = 0; i < 32; ++i) q[i] |= ((high >> i) & 1) << 4;
}

uint16_t word(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, 2);
  return value;
}

// The twelve bytes of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit mins.
void six_bit_pairs(const uint8_t* s, Block& b) {
  for (int i = 0; i < 4; ++i) {
    b.scales[i] = s[i] & 63;
    b.mins[i] = s[i + 4] & 63;
    b.scales[i + 4] = (s[i + 8] & 15) | ((s[i] >> 6) << 4);
    b.mins[i + 4] = (s[i + 8] >> 4) | ((s[i + 4] >> 6) << 4);
  }
}

void decode(FormatQ5_0, const uint8_t* in, Block& b) {
  b.d = word(in);
  low_then_high(in + 6, 16, b.q);
  fifth_bits(in + 2, b.q);
}

void decode(FormatQ5_1, const uint8_t* in, Block& b) {
  b.d = word(in);
  b.m = word(in + 2);
  low_then_high(in + 8, 16, b.q);
  fifth_bits(in + 4, b.q);
}

void decode(FormatQ2_K, const uint8_t* in, Block& b) {
  std::memcpy(b.scales, in, 16);  // scale in the low nibble, min in the high one
  for (int half = 0; half < 2; ++half)
    for (int shift = 0; shift < 4; ++shift)
      for (int i = 0; i < 32; ++i)
        b.q[128 * half + 32 * shift + i] = (in[16 + 32 * half + i] >> (2 * shift)) & 3;
  b.d = word(in + 80);
  b.m = word(in + 82);
}

void decode(FormatQ3_K, const uint8_t* in, Block& b) {
  const uint8_t *high = in, *low = in + 32, *s = in + 96;
  for (int half = 0; half < 2; ++half)
    for (int shift = 0; shift < 4; ++shift)
      for (int i = 0; i < 32; ++i)
        b.q[128 * half + 32 * shift + i] =
            ((low[32 * half + i] >> (2 * shift)) & 3) | (((high[i] >> (4 * half + shift)) & 1) << 2);
  for (int i = 0; i < 16; ++i) {
    const int four = i < 8 ? s[i] & 15 : s[i - 8] >> 4;
    const int two = (s[8 + i % 4] >> (2 * (i / 4))) & 3;
    b.scales[i] = uint8_t(four + 16 * two - 32);
  }
  b.d = word(in + 108);
}

void decode(FormatQ4_K, const uint8_t* in, Block& b) {
  b.d = word(in);
  b.m = word(in + 2);
  six_bit_pairs(in + 4, b);
  for (int i = 0; i < 4; ++i) low_then_high(in + 16 + 32 * i, 32, b.q + 64 * i);
}

void decode(FormatQ5_K, const uint8_t* in, Block& b) {
  b.d = word(in);
  b.m = word(in + 2);
  six_bit_pairs(in + 4, b);
  for (int i = 0; i < 4; ++i) low_then_high(in + 48 + 32 * i, 32, b.q + 64 * i);
  for (int bit = 0; bit < 8; ++bit)
    for (int i = 0; i < 32; ++i) b.q[32 * bit + i] |= ((in[16 + i] >> bit) & 1) << 4;
}

void decode(FormatQ6_K, const uint8_t* in, Block& b) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t *low = in + 64 * half, *high = in + 128 + 32 * half;
    uint8_t* q = b.q + 128 * half;
    for (int i = 0; i < 32; ++i) {
      q[i] = (low[i] & 15) | ((high[i] & 3) << 4);
      q[i + 32] = (low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4);
      q[i + 64] = (low[i] >> 4) | (((high[i] >> 4) & 3) << 4);
      q[i + 96] = (low[i + 32] >> 4) | ((high[i] >> 6) << 4);
    }
  }
  std::memcpy(b.scales, in + 192, 16);
  b.d = word(in + 208);
}

void decode(FormatIQ4_XS, const uint8_t* in, Block& b) {
  b.d = word(in);
  const uint16_t high = word(in + 2);
  for (int i = 0; i < 8; ++i) {
    const int low = (in[4 + i / 2] >> (4 * (i % 2))) & 15;
    b.scales[i] = uint8_t(low + (((high >> (2 * i)) & 3) << 4) - 32);
    low_then_high(in + 8 + 16 * i, 16, b.q + 32 * i);
  }
}

// The integers of 32 columns of eight rows, w [8][32], into planes.
template <int Bits>
void cut_planes(const uint8_t (*w)[32], uint8_t* out) {
  if constexpr (Bits == 8) {
    std::memcpy(out, w, 256);
    return;
  }
  constexpr int wide = Bits >= 4 ? 4 : 2;
  constexpr int per = 8 / wide, vectors = 8 / per;  // vector v holds the columns of v, v + vectors, ...
  constexpr uint8_t mask = (1 << wide) - 1;
  for (int v = 0; v < vectors; ++v)
    for (int i = 0; i < 32; ++i) {
      uint8_t byte = 0;
      for (int p = 0; p < per; ++p) byte |= (w[v + vectors * p][i] & mask) << (wide * p);
      out[32 * v + i] = byte;
    }
  out += 32 * vectors;
  if constexpr (Bits == 6)
    for (int v = 0; v < 2; ++v)
      for (int i = 0; i < 32; ++i) {
        uint8_t byte = 0;
        for (int p = 0; p < 4; ++p) byte |= (w[v + 2 * p][i] >> 4) << (2 * p);
        out[32 * v + i] = byte;
      }
  if constexpr (Bits == 3 || Bits == 5)
    for (int i = 0; i < 32; ++i) {
      uint8_t byte = 0;
      for (int g = 0; g < 8; ++g) byte |= (w[g][i] >> (Bits - 1)) << g;
      out[i] = byte;
    }
}

// Nothing but integers of 4 or 8 bits behind one scale: the words of the file, four bytes each, are the planes'.
template <class F>
constexpr bool keeps_words() {
  if constexpr (is_float<F>) return false;
  else return !F::two_level && (F::bits == 4 || F::bits == 8);
}

using Words = uint32_t __attribute__((vector_size(16)));

// Four words of four rows; word v of row r goes to lane r at out [v][kLanes].
void turn_words(const uint8_t* const* rows, size_t at, uint8_t* out) {
  Words in[4];
  for (int r = 0; r < 4; ++r) std::memcpy(&in[r], rows[r] + at, sizeof in[r]);
  const Words firsts{0, 4, 1, 5}, lasts{2, 6, 3, 7};  // of both, in turn
  const Words pairs[4] = {__builtin_shuffle(in[0], in[1], firsts), __builtin_shuffle(in[2], in[3], firsts),
                          __builtin_shuffle(in[0], in[1], lasts), __builtin_shuffle(in[2], in[3], lasts)};
  for (int v = 0; v < 4; ++v) {
    const Words half = v % 2 == 0 ? Words{0, 1, 4, 5} : Words{2, 3, 6, 7};
    const Words turned = __builtin_shuffle(pairs[v / 2 * 2], pairs[v / 2 * 2 + 1], half);
    std::memcpy(out + 4 * v * kLanes, &turned, sizeof turned);
  }
}

template <class F>
void pack_words(const uint8_t* const* rows, int lanes, uint8_t* out) {
  constexpr size_t words = F::file_bytes - 4 * F::bits;  // where they begin
  if (lanes < kLanes) std::memset(out, 0, F::record);
  for (int r = 0; r < lanes; ++r) {
    std::memcpy(out + 2 * r, rows[r], 2);
    if (F::mins) std::memcpy(out + 2 * kLanes + 2 * r, rows[r] + 2, 2);
  }
  out += F::planes_at;
  if (lanes == kLanes) {
    for (int v = 0; v < F::bits; v += 4)
      for (int r = 0; r < kLanes; r += 4) turn_words(rows + r, words + 4 * v, out + 4 * (v * kLanes + r));
  } else {
    for (int r = 0; r < lanes; ++r)
      for (int v = 0; v < F::bits; ++v) std::memcpy(out + 4 * (v * kLanes + r), rows[r] + words + 4 * v, 4);
  }
}

// Whether one of eight halves is infinite or NaN: adding one to an exponent of all ones carries into the sign.
bool any_special(const uint8_t* halves) {
  constexpr uint64_t exponents = 0x7c00'7c00'7c00'7c00, ones = 0x0400'0400'0400'0400, signs = 0x8000'8000'8000'8000;
  uint64_t words[2];
  std::memcpy(words, halves, sizeof words);
  return ((((words[0] & exponents) + ones) | ((words[1] & exponents) + ones)) & signs) != 0;
}

// The same for a record: the scales of an integer type, the weights of a float type.
template <class F>
bool is_special(const uint8_t* record, int lanes) {
  if constexpr (F::type == F32 || F::type == BF16) {
    constexpr int at = F::file_bytes - 2;  // the upper half of a float has its exponent
    bool special = false;
    for (int r = 0; r < lanes; ++r) special |= (word(record + F::file_bytes * r + at) & 0x7f80) == 0x7f80;
    return special;
  } else if constexpr (F::type == F16) {
    return any_special(record);
  } else {
    return any_special(record) || (F::mins && any_special(record + 2 * kLanes));
  }
}

template <class F>
void pack_record(const uint8_t* const* rows, int lanes, uint8_t* out) {
  if constexpr (is_float<F>) {
    if (lanes < kLanes) std::memset(out, 0, F::record);
    for (int r = 0; r < lanes; ++r) std::memcpy(out + F::file_bytes * r, rows[r], F::file_bytes);
  } else if constexpr (keeps_words<F>()) {
    pack_words<F>(rows, lanes, out);
  } else {
    Block blocks[kLanes];
    if (lanes < kLanes) std::memset(static_cast<void*>(blocks), 0, sizeof blocks);
    for (int r = 0; r < lanes; ++r) decode(F{}, rows[r], blocks[r]);
    for (int r = 0; r < kLanes; ++r) {
      std::memcpy(out + 2 * r, &blocks[r].d, 2);
      if (F::mins) std::memcpy(out + 2 * kLanes + 2 * r, &blocks[r].m, 2);
    }
    if constexpr (F::two_level)
      for (int s = 0; s < F::subs; ++s)
        for (int r = 0; r < kLanes; ++r) {
          out[F::scales_at + s * kLanes + r] = blocks[r].scales[s];
          if (F::mins && !F::nibbles) out[F::mins_at + s * kLanes + r] = blocks[r].mins[s];
        }
    for (int c = 0; c < F::columns / 32; ++c) {
      alignas(32) uint8_t w[8][32];
      for (int r = 0; r < kLanes; ++r)
        for (int g = 0; g < 8; ++g) std::memcpy(&w[g][4 * r], &blocks[r].q[32 * c + 4 * g], 4);
      cut_planes<F::bits>(w, out + F::planes_at + F::planes * c);
    }
  }
}

constexpr size_t kPiece = size_t(32) << 20, kHugePage = size_t(2) << 20, kLine = 64;

}  // namespace

size_t row_bytes(int type, int columns) {
  size_t bytes = 0;
  with_format(type, [&](auto f) {
    using F = decltype(f);
    if (columns > 0 && columns % F::columns == 0) bytes = size_t(columns / F::columns) * F::file_bytes;
  });
  return bytes;
}

size_t panel_bytes(int type, int columns) {
  size_t bytes = 0;
  with_format(type, [&](auto f) {
    using F = decltype(f);
    if (columns > 0 && columns % F::columns == 0) bytes = size_t(columns / F::columns) * F::record;
  });
  return bytes;
}

void pack_panels(const Weight& weight, int first, int last, uint8_t* out) {
  const size_t row = row_bytes(weight.type, weight.columns);
  with_format(weight.type, [&](auto f) {
    using F = decltype(f);
    const int records = weight.columns / F::columns;
    bool special = false;
    for (int panel = first; panel < last; ++panel) {
      const int lanes = weight.rows - panel * kLanes < kLanes ? weight.rows - panel * kLanes : kLanes;
      for (int record = 0; record < records; ++record, out += F::record) {
        const uint8_t* rows[kLanes];
        for (int r = 0; r < lanes; ++r)
          rows[r] = weight.file + (size_t(panel) * kLanes + r) * row + size_t(record) * F::file_bytes;
        pack_record<F>(rows, lanes, out);
        special |= is_special<F>(out, lanes);
      }
    }
    if (special) weight.damaged.store(true, std::memory_order_relaxed);
  });
}

void set_theta(Weight& weight, int rank, const float* u, const float* v, const float* half_gamma) {
  const auto step_of = [](const float* values, int count) {
    float most = 0;
    for (int i = 0; i < count; ++i) most = std::fabs(values[i]) > most ? std::fabs(values[i]) : most;
    // Below the smallest normal number the step is not exact: what is so small is nothing.
    return most / 127 >= std::numeric_limits<float>::min() ? most / 127 : 1.0f;
  };
  std::vector<int8_t> packed_u(size_t(weight.panels()) * rank * kLanes), packed_v(size_t(rank) * weight.columns);
  std::vector<float> scales(rank);
  for (int j = 0; j < rank; ++j) {
    const float *uj = u + size_t(j) * weight.rows, *vj = v + size_t(j) * weight.columns;
    const float step_u = step_of(uj, weight.rows), step_v = step_of(vj, weight.columns);
    for (int i = 0; i < weight.rows; ++i)
      packed_u[(size_t(i / kLanes) * rank + j) * kLanes + i % kLanes] = int8_t(std::lrint(uj[i] / step_u));
    for (int i = 0; i < weight.columns; ++i)
      packed_v[size_t(j) * weight.columns + i] = int8_t(std::lrint(vj[i] / step_v));
    scales[j] = step_u * step_v;
  }
  weight.u = std::move(packed_u);
  weight.v = std::move(packed_v);
  weight.scales = std::move(scales);
  weight.rank = rank;
  weight.half_gamma = half_gamma;
}

void use_theta(Weight& weight, bool use) { weight.rank = use ? int(weight.scales.size()) : 0; }

Arena::~Arena() {
  for (const Piece& piece : pieces_) munmap(piece.start, piece.bytes);
}

uint8_t* Arena::take(size_t bytes) {
  bytes = (bytes + kLine - 1) / kLine * kLine;
  if (pieces_.empty() || pieces_.back().bytes - pieces_.back().used < bytes) {
    const size_t piece = bytes > kPiece ? (bytes + kHugePage - 1) / kHugePage * kHugePage : kPiece;
    void* start = mmap(nullptr, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
    madvise(start, piece, MADV_HUGEPAGE);  // a wish: where it is not granted, small pages serve
#endif
    pieces_.push_back({static_cast<uint8_t*>(start), piece, 0});
  }
  Piece& piece = pieces_.back();
  uint8_t* taken = piece.start + piece.used;
  piece.used += bytes;
  return taken;
}

}  // namespace nkat
