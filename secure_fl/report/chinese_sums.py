# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001
"""The report in Chinese (simplified): the same ids as in ``english_sums.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["CHINESE_SUMS"]

CHINESE_SUMS: Final[Mapping[str, str]] = {
    "subtitle.client": "本次运行可能向他人泄露了单个客户端的多少信息，以及如何核查",
    # -- claims
    "claims.lead.record-sum": "对于聚合方，即使有至多 {colluding} 个客户端与其合谋，在 "
    "delta 为 {delta} 时，本次运行的模型和已解出的总和对任何一条训练记录的暴露程度不超"
    "过 epsilon {epsilon}。如果保护失效，或者有更多客户端合谋，则只剩第二项声明。"
    "epsilon 越小，能获知的单条记录信息越少。",
    "claims.lead.client-sum": "对于聚合方，即使有至多 {colluding} 个客户端与其合谋，在 "
    "delta 为 {delta} 时，本次运行的模型和已解出的总和对任何一个客户端所发送内容的暴露"
    "程度不超过 epsilon {epsilon}。如果保护失效，或者有更多客户端合谋，则只剩第二项声"
    "明。epsilon 越小，能获知的单个客户端信息越少。",
    "claim.record-sum": "记录级，已解出总和的视角",
    "claim.record-share": "记录级，其他各方全部合谋",
    "claim.client-sum": "客户端级，已解出总和的视角",
    "claim.client-share": "客户端级，其他各方全部合谋",
    "view.sum": "聚合方，连同至多 {colluding} 个客户端，以及所见更少的任何人：他们看到"
    "各个模型和已解出的总和，并知道自己的噪声。声明依赖掩码，并依赖至少 {shares} 个诚"
    "实客户端的噪声。",
    "view.sum.one-time": "聚合方，连同至多 {colluding} 个客户端，以及所见更少的任何"
    "人：他们看到各个模型和已解出的总和，并知道自己的噪声。声明依赖加密，并依赖至少 "
    "{shares} 个诚实客户端的噪声。",
    "view.sum.keyholder": "聚合方，连同至多 {colluding} 个客户端，但不包括密钥持有"
    "方：他们看到各个模型和已解出的总和，并知道自己的噪声。声明依赖加密，并依赖至少 "
    "{shares} 个诚实客户端的噪声。",
    "view.share": "除该客户端自己以外的所有人联手：即使保护被攻破，其他各方全部合谋，"
    "并且知道除它那一份以外的全部噪声，声明依然成立。",
    "view.infinite": "不防范任何人：在此视角下 epsilon 为无穷大。",
    "unit.client": "一个完整的客户端",
    "adjacency.add-or-remove-one.client": "该客户端所发送的内容（与全零相比）",
    "claim.group.client": "{records} 个客户端合计的 epsilon",
    "claim.records.client": "客户端数",
    "claim.tpr.client": "误报率为 {fpr} 时，客户端被认出的比例上限",
    "claims.delta-large.client": "delta {delta} 乘以 {records} 个客户端等于 {product}："
    "机制有可能把这么多客户端完全暴露。",
    "claims.projected.share": "计划为每个客户端预留 {count} 次发布。在此视角下，仅这些"
    "发布的 epsilon 为 {one}；计划对此没有设定上限。",
    "overlap.disjoint.client": "跨客户端：每个客户端各为一个单位，因此联盟的 epsilon 是"
    "各客户端中的最大值（并行组合）。",
    "assumption.keyholder-apart": "聚合方与密钥持有方彼此隔离。两者联手即可解密每个客户"
    "端的向量，那时只剩关于单个客户端那一份噪声的声明。",
    "assumption.sums-only": "保护有效：聚合方连同至多 {colluding} 个客户端，只能得知至"
    "少 {min_clients} 个客户端的总和，每个向量至多出现在一个总和中，除此之外对任何向量"
    "一无所知。这是计算意义上的假设。",
    "assumption.honest-shares": "每个已解出的总和中，至少有 {shares} 个客户端是诚实的，"
    "并加入了自己的那一份噪声；在以前各次运行的总和中，其数量以账本所记为准。没有加入噪"
    "声的客户端按合谋者计。",
    "assumption.share-first": "本软件包先裁剪、舍入到网格并加入该客户端的那一份噪声，"
    "之后才有数据离开客户端。",
    "assumption.trainer-gradients": "每个客户端的训练代码把模型和记录交给本软件包，由其"
    "裁剪并累加梯度；训练代码逐条处理记录（不使用批次统计量），不根据精确的损失或分数"
    "作任何决定（停止、在别处输出），并且所用的初始层和预处理不是用这些记录拟合得到"
    "的。",
    "assumption.trainer-update": "每个客户端的训练代码只交出更新，别无其他：不交出精确"
    "的损失或分数，也不根据它们作任何决定。",
    "assumption.csprng-opendp": "噪声由 opendp 自己的安全随机数发生器产生；采样和舍入由"
    "计数器模式的 AES 产生，其密钥来自操作系统的安全随机数发生器。",
    "assumption.integer-noise": "噪声是整数，用双精度运算抽取：它与精确分布的差距不在声"
    "明之内。",
    "assumption.exact-noise": "噪声是整数，由 opendp 精确抽取。",
    "assumption.float-gradients": "所发送的内容以浮点数裁剪、求和与旋转；敏感度为此留出"
    "了百万分之一的余量。一条记录自身的梯度不依赖于与它一同计算的记录，末位数字除外。",
    # -- what the figures mean
    "meaning.how.record-sum": "最强的攻击者知道除一条以外的全部记录，以及与他合谋的客户"
    "端的噪声，并看到全部模型和已解出的总和。他要判断那条记录是否被使用。任何攻击都不"
    "会超过下列上限；大多数攻击远不及此。",
    "meaning.how.client-sum": "最强的攻击者知道除一个以外的所有客户端发送的内容，以及与"
    "他合谋的客户端的噪声，并看到全部模型和已解出的总和。他要判断那个客户端发送的是否"
    "为全零。任何攻击都不会超过下列上限；大多数攻击远不及此。",
    "trade_off.picture.client": "按误报率被认出的客户端",
    "trade_off.alt.client": "客户端被认出的最大比例随误报率变化的折线图，每个客户端一条"
    "线，另有随机猜测线。整个联盟，误报率与认出比例：{values}。",
    "trade_off.caption.client": "按误报率，客户端被认出的比例上限",
    "group.caption.client": "若干客户端合计的 epsilon，取声明的 delta",
    "not_claimed.records": "没有为单条记录另行声明数字：有它和没有它时，客户端发送两个"
    "不同的向量，而声明把每个向量与全零相比，因此从一个到另一个需要用两次声明。",
    "not_claimed.coalitions": "对于比声明所列更多的客户端合计，不作任何声明。",
    # -- unit, parties, trust
    "unit.line.client": "隐私单位是{unit}；相邻的两次运行相差{adjacency}。它涵盖该客户"
    "端的全部记录，无论多少。客户端参与了运行这一事实并不隐藏。",
    "unit.plan-statement.client": "每个客户端各为独立一方，这是每个成员都已签署的计划中"
    "的陈述。",
    "parties.caption.distributed": "计划中的客户端。记录数是名义值且公开，并非从数据中"
    "数出。每一轮的总和除以其中各客户端公开常数之和",
    "parties.normaliser.distributed": "在除数中所占部分",
    "threat.masking.distributed": "保护方式：安全掩码。只要 {clients} 个客户端中与聚合"
    "方合谋的不超过 {colluding} 个，聚合方就只能解出一个经各方同意的客户端集合的总和，"
    "别无其他。门限为 {threshold}，每个总和至少有 {min_clients} 个客户端。这种保护是计"
    "算意义上的。关于已解出总和的声明需要它；另一项声明不需要。",
    "threat.ckks.claim.distributed": "这种保护是计算意义上的。关于已解出总和的声明需要"
    "它；另一项声明不需要。",
    # -- how it was made
    "mechanism.line.distributed-dp-sgd": "每一轮：每个客户端对被采样记录的梯度求和，每"
    "个梯度先按 L2 裁剪范数 {clip} 裁剪，再把总和旋转，舍入到步长为 {step} 的网格，并加"
    "入自己的那一份整数噪声（{noise}），每个坐标的标准差为 {share}。已解出的总和至少含"
    "有 {shares} 份这样的噪声，标准差为 {sigma}（噪声乘数 {multiplier}）。聚合方将其除"
    "以公开常数，并走一步。",
    "mechanism.line.distributed-update": "每一轮：每个客户端进行训练，把整个更新按 L2 "
    "裁剪范数 {clip} 裁剪，再旋转，舍入到步长为 {step} 的网格，并加入自己的那一份整数噪"
    "声（{noise}），每个坐标的标准差为 {share}。已解出的总和至少含有 {shares} 份这样的"
    "噪声，标准差为 {sigma}（噪声乘数 {multiplier}）。聚合方将其除以客户端数，并加到模"
    "型上。",
    "mechanism.formula.distributed-dp-sgd": "g = step * R'( Σ客户端 [ round( R( Σ记录 "
    "clip(梯度) ) / step ) + 噪声 ] ) / ( 采样率 * 这些客户端的记录数 )，其中 R 为旋"
    "转，R' 为其逆。",
    "mechanism.formula.distributed-update": "u = step * R'( Σ客户端 [ round( R( "
    "clip(更新) ) / step ) + 噪声 ] ) / 客户端数，其中 R 为旋转，R' 为其逆。",
    "mechanism.sensitivity": "受保护的内容（一{unit}）使总和变化的 L2 范数不超过 "
    "{sensitivity}，已包括舍入。",
    "mechanism.unit.record": "条记录",
    "mechanism.unit.client": "个客户端",
    "mechanism.skellam": "Skellam 噪声，即两个泊松变量之差",
    "mechanism.discrete-gaussian": "离散高斯噪声",
    "mechanism.zero": "不是有限值的更新按零处理：外界看不出这一点。",
    "mechanism.no-batches": "不抽取批次。",
    "sampling.line.distributed": "泊松采样：在每一轮中，每条记录以概率 {rate} 独立地被"
    "使用。",
    "sampling.full.client": "不采样：每个客户端都参加它所到达的每一轮。",
    "composition.across.parallel.client": "跨客户端不累加：每个客户端各为一个单位。",
    "accounting.PLD-or-RDP": "epsilon 取两个上界中较小的一个。其一由 Renyi 差分隐私"
    "（RDP）在 2 到 512 的整数阶上计算。其二把 Skellam 噪声当作取整后的高斯噪声，并把二"
    "者之差（已有证明）计入 delta；不采样时用闭式公式，否则由隐私损失分布（PLD）在步长"
    "为 {interval} 的网格上计算，步长也可取其几分之一或若干倍。若其中含有离散高斯噪声，"
    "则只用 RDP。",
    "accounting.RDP": "epsilon 由 Renyi 差分隐私（RDP）在 2 到 512 的整数阶上计算，是上"
    "界。没有隐私损失分布（PLD）与之对照：在这种噪声下，损失取决于整个向量，而最坏的向"
    "量尚属未知。",
    "answers.caption.sums": "delta 为 1e-05 时的已知答案，由撰写本报告的程序重新计算",
    "answer.skellam-rdp": "采样率 0.05、Skellam 噪声分为 4 份的 100 个总和，按 RDP（由"
    "其公式以 60 位数字算得）",
    "answer.skellam-pld": "采样率 0.01、Skellam 噪声较大（为敏感度的 0.7 倍）的 120 个"
    "总和，按 PLD（当作高斯噪声：取自 TensorFlow Privacy 的测试）",
    # -- randomness and numbers
    "randomness.noise.distributed": "噪声",
    "source.opendp": "opendp 自己的安全随机数发生器",
    "numerics.grid.distributed": "旋转后向量的每个值被截断到 -{clip} 与 {clip} 之间，并"
    "舍入到步长为 {step} 的网格。噪声是整数步（{bits} 位字）。",
    "numerics.rounding.conditional": "随机地向上或向下舍入，平均而言不偏；整个向量会重"
    "新抽取舍入，直到不长于核算所用的长度。",
    "numerics.place.before-noise": "截断和舍入在加噪之前进行。舍入可能增加的部分已计入"
    "敏感度，因而也计入每个 epsilon。",
    "numerics.wrap.improbable": "计划中任何总和溢出回绕的概率不超过 2 的 -40 次方；那会"
    "损坏模型，而不会损害隐私。",
    "baseline.pooled_private": "全部记录集中训练，有隐私保护",
}
