-- Sends the requests that are in files named 1, 2, ... in the folder REQUESTS, in turn; prints the result as JSON.

local folder = os.getenv("REQUESTS")
local requests = {}
local sent = 0

function init()
  while true do
    local file = io.open(folder .. "/" .. (#requests + 1), "rb")
    if not file then break end
    requests[#requests + 1] = file:read("*a")
    file:close()
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency, _)
  local quantiles = {}
  quantiles[1] = latency.min
  for step = 1, 99 do quantiles[step + 1] = latency:percentile(step) end
  quantiles[101] = latency.max
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d, "quantiles_us": [%s]}\n',
    summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    table.concat(quantiles, ", ")))
end
