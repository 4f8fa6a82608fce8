// Whether the operands of a call fit each other. All throw a `Refusal`, before anything is read or written.
//
// Lengths count elements. What a layer is made of takes some comparisons a layer; positions and slots are looked at
// once a call, which the attention does many times for each head.
#pragma once

#include "context.h"

namespace nkat {

// A matrix of `file_bytes` bytes and `bias_count` values of its bias, if there is one.
void check_matrix(int type, int64_t rows, int64_t columns, int64_t file_bytes, bool has_bias, int64_t bias_count);

// Factors u [rank][rows], v [rank][columns] of a matrix, all of them finite.
void check_theta(const Weight& weight, int64_t rank, const float* u, int64_t u_count, const float* v, int64_t v_count);

// A product of x_count values with a matrix, behind a norm if there is one, to y_count values.
void check_linear(const Weight& weight, const float* norm, int64_t norm_count, int64_t x_count, int64_t rows,
                  int64_t y_count);

// Rows of a matrix, to out_count values.
void check_embed(const Weight& weight, const int64_t* ids, int64_t count, int64_t out_count);

// Layers on x_count values: rows of the batch.
void check_forward(const Layer* layers, int64_t count, int64_t x_count, const Batch& batch, const Cache* cache);

}  // namespace nkat
